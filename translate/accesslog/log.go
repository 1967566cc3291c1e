package accesslog

import (
	"encoding/json"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
)

// Kind is where a log is written to.
type Kind int

// The kinds of logs.
const (
	KindFile          Kind = iota // Path
	KindGRPC                      // Service, by Envoy's access log service
	KindOpenTelemetry             // Service, by OTLP/gRPC
)

// Log is one access log. It is immutable, and its methods are safe for concurrent use.
type Log struct {
	Kind Kind
	// Path is that of a file; "/dev/stdout" and "/dev/stderr" are the bridge's own.
	Path string
	// Name is the log_name that a service is told.
	Name    string
	Service Service
	// TCP tells that a service is sent entries of connections (tcp_grpc), of whatever the log is.
	TCP bool
	// BuiltinLabels tells that Resource is besides what Envoy says of itself: log_name, zone_name, cluster_name,
	// node_name.
	BuiltinLabels bool
	// Hostname is %HOSTNAME%. It is set by whoever has parsed the log, before it is used.
	Hostname string
	// FlushInterval and BufferSize say when entries are sent: after that time, or so many bytes. Their defaults
	// are Envoy's, 1 s and 16 KiB.
	FlushInterval time.Duration
	BufferSize    int
	// RequestHeaders and ResponseHeaders are those that entries must have, in lower case, sorted: of the
	// format, and those that a service is sent besides. SentRequestHeaders and the like are the latter alone
	// (additional_request_headers_to_log).
	RequestHeaders, ResponseHeaders                               []string
	SentRequestHeaders, SentResponseHeaders, SentResponseTrailers []string

	// text is the configuration, to compare by.
	text       string
	filter     predicate // nil is all
	format     func(dst []byte, l *Log, e *Entry) []byte
	body       *anyValue
	attributes []keyValue
	resource   []*commonpb.KeyValue
	tags       []tag
}

// Equal tells whether two logs do the same.
func (l *Log) Equal(o *Log) bool {
	return l == o || l != nil && o != nil && l.text == o.text && l.Hostname == o.Hostname
}

// String says where a log is written to.
func (l *Log) String() string {
	switch l.Kind {
	case KindGRPC:
		return "gRPC " + l.Name + " to " + l.Service.Cluster
	case KindOpenTelemetry:
		return "OpenTelemetry " + l.Name + " to " + l.Service.Cluster
	case KindFile:
	}
	return "file " + l.Path
}

// MarshalJSON is String: a table that is shown has no credentials in it, which the metadata of a service may be.
func (l *Log) MarshalJSON() ([]byte, error) { return json.Marshal(l.String()) }

// Wants tells whether an entry is logged.
func (l *Log) Wants(e *Entry) bool { return l.filter == nil || l.filter(e) }

// Line is the line of a file about an entry, with what Envoy ends it in: of a text format that is part of the
// format. It is nil for logs of other kinds.
func (l *Log) Line(e *Entry) []byte {
	if l.format == nil {
		return nil
	}
	return l.format(nil, l, e)
}

// Service is the gRPC service of a log.
type Service struct {
	// Cluster is the name of an xDS cluster.
	Cluster string
	// Authority is what the service is called (:authority); empty is the cluster's name.
	Authority string
	// Metadata are headers to send with each stream, as name and value in turn.
	Metadata []string
	// Timeout bounds how long the service may take to answer; 0 is without limit.
	Timeout time.Duration
}
