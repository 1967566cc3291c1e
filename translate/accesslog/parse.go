package accesslog

import (
	"regexp"
	"slices"
	"strings"
	"time"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpclogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	otellogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	streamlogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Envoy's defaults (CommonGrpcAccessLogConfig).
const (
	defaultFlushInterval = time.Second
	defaultBufferSize    = 16 << 10
)

// parser is one call of Parse.
type parser struct {
	log      *Log
	operator *regexp.Regexp
	problems []string
	// request and response are the headers that formats and filters ask for.
	request, response []string
}

// Parse reads an access log; tcp tells that it is one of connections. log is nil where entries cannot be
// written as it says: it is of a kind that is not known, or its service is reached by other means than a
// cluster and gRPC; problems says why. Otherwise problems names what the log does without, in words: where a part
// of a filter is missing, more is logged than was asked for.
func Parse(config *accesslogpb.AccessLog, tcp bool) (log *Log, problems []string) {
	p := &parser{
		operator: regexp.MustCompile(`\A%([A-Z0-9_]+)(?:\((.*?)\))?(?::([0-9]+))?%`),
		log:      &Log{FlushInterval: defaultFlushInterval, BufferSize: defaultBufferSize},
	}
	if !p.parseKind(config.GetTypedConfig()) {
		return nil, p.problems
	}
	p.unread(config, "name", "filter", "typed_config")
	if f := config.GetFilter(); f != nil {
		p.log.filter = p.parseFilter(f)
	}
	if !tcp { // connections have no headers
		p.log.RequestHeaders = sortedHeaders(p.request, p.log.SentRequestHeaders)
		p.log.ResponseHeaders = sortedHeaders(p.response, p.log.SentResponseHeaders)
	}
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(config)
	if err != nil {
		p.problem("what does not encode") // a message that was decoded does
	}
	p.log.text = string(text)
	if tcp {
		p.log.text += " tcp"
	}
	return p.log, p.problems
}

// parseKind reads what is particular to a kind of log; it is false where there is nothing to write to.
func (p *parser) parseKind(config *anypb.Any) bool {
	switch config.MessageName() {
	case "envoy.extensions.access_loggers.file.v3.FileAccessLog":
		c := new(filelogpb.FileAccessLog)
		return p.decode(config, c) && p.parseFile(c)
	case "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog":
		c := new(streamlogpb.StdoutAccessLog)
		return p.decode(config, c) && p.parseStream("/dev/stdout", c, c.GetLogFormat())
	case "envoy.extensions.access_loggers.stream.v3.StderrAccessLog":
		c := new(streamlogpb.StderrAccessLog)
		return p.decode(config, c) && p.parseStream("/dev/stderr", c, c.GetLogFormat())
	case "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig":
		c := new(grpclogpb.HttpGrpcAccessLogConfig)
		if !p.decode(config, c) {
			return false
		}
		p.unread(c, "common_config", "additional_request_headers_to_log", "additional_response_headers_to_log", "additional_response_trailers_to_log")
		p.log.Kind = KindGRPC
		p.request = append(p.request, alwaysSent()...)
		p.log.SentRequestHeaders = sortedHeaders(c.GetAdditionalRequestHeadersToLog())
		p.log.SentResponseHeaders = sortedHeaders(c.GetAdditionalResponseHeadersToLog())
		p.log.SentResponseTrailers = sortedHeaders(c.GetAdditionalResponseTrailersToLog())
		if len(p.log.SentResponseTrailers) > 0 { // of which APISIX tells nothing
			p.problem("the trailers " + strings.Join(p.log.SentResponseTrailers, ", "))
		}
		return p.parseCommon(c.GetCommonConfig())
	case "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig":
		c := new(grpclogpb.TcpGrpcAccessLogConfig)
		if !p.decode(config, c) {
			return false
		}
		p.unread(c, "common_config")
		p.log.Kind, p.log.TCP = KindGRPC, true
		return p.parseCommon(c.GetCommonConfig())
	case "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig":
		c := new(otellogpb.OpenTelemetryAccessLogConfig)
		return p.decode(config, c) && p.parseOpenTelemetry(c)
	}
	return false
}

func (p *parser) decode(config *anypb.Any, to proto.Message) bool {
	if err := config.UnmarshalTo(to); err != nil {
		p.problem("it does not decode")
		return false
	}
	return true
}

// parseCommon reads what both logs to Envoy's service have.
func (p *parser) parseCommon(c *grpclogpb.CommonGrpcAccessLogConfig) bool {
	p.unread(c, "log_name", "grpc_service", "transport_api_version", "buffer_flush_interval", "buffer_size_bytes",
		"filter_state_objects_to_log", "grpc_stream_retry_policy", "custom_tags")
	p.log.Name = c.GetLogName()
	p.parseBuffer(c.GetBufferFlushInterval(), c.GetBufferSizeBytes())
	p.parseFilterState(c.GetFilterStateObjectsToLog())
	p.parseTags(c.GetCustomTags())
	return p.parseService(c.GetGrpcService())
}

func (p *parser) parseService(s *corepb.GrpcService) bool {
	p.unread(s, "envoy_grpc", "google_grpc", "initial_metadata", "timeout", "retry_policy")
	to := s.GetEnvoyGrpc()
	switch {
	case s.GetGoogleGrpc() != nil:
		p.problem("its service is one of google_grpc")
		return false
	case to.GetClusterName() == "":
		p.problem("it names no service")
		return false
	}
	// Entries are sent again in any case, which is what a retry policy asks for.
	p.unread(to, "cluster_name", "authority", "retry_policy", "max_receive_message_length", "skip_envoy_headers")
	p.log.Service = Service{Cluster: to.GetClusterName(), Authority: to.GetAuthority()}
	for _, h := range s.GetInitialMetadata() {
		value := h.GetValue()
		if raw := h.GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		p.log.Service.Metadata = append(p.log.Service.Metadata, strings.ToLower(h.GetKey()), value)
	}
	if t := s.GetTimeout(); t != nil && t.AsDuration() > 0 {
		p.log.Service.Timeout = t.AsDuration()
	}
	return true
}

func (p *parser) parseBuffer(interval *durationpb.Duration, size *wrapperspb.UInt32Value) {
	if interval != nil && interval.AsDuration() > 0 {
		p.log.FlushInterval = interval.AsDuration()
	}
	if size != nil {
		p.log.BufferSize = int(size.GetValue())
	}
}

// parseFilterState reports objects of the filter state: filters of Envoy leave them there.
func (p *parser) parseFilterState(names []string) {
	if len(names) > 0 {
		p.problem("the filter state " + strings.Join(names, ", "))
	}
}

// problem notes what is missing.
func (p *parser) problem(what string) {
	if !slices.Contains(p.problems, what) {
		p.problems = append(p.problems, what)
	}
}

// unread notes the fields that are set and not among those that are read, also ones that Envoy gains later.
func (p *parser) unread(m proto.Message, read ...protoreflect.Name) {
	var names []string
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(read, f.Name()) {
			names = append(names, string(f.Name()))
		}
		return true
	})
	slices.Sort(names)
	for _, name := range names {
		p.problem("its " + name)
	}
}

// sortedHeaders are the names of headers in lower case, sorted, each once.
func sortedHeaders(lists ...[]string) []string {
	var out []string
	for _, name := range slices.Concat(lists...) {
		out = append(out, strings.ToLower(name))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
