package accesslog

import "time"

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
	// FlushInterval and BufferSize say when entries are sent: after that time, or so many bytes. Their defaults
	// are Envoy's, 1 s and 16 KiB.
	FlushInterval time.Duration
	BufferSize    int
	// RequestHeaders and ResponseHeaders are those that entries must have, in lower case, sorted: of the
	// format, and those that a service is sent besides. SentRequestHeaders and the like are the latter alone
	// (additional_request_headers_to_log).
	RequestHeaders, ResponseHeaders                               []string
	SentRequestHeaders, SentResponseHeaders, SentResponseTrailers []string
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
