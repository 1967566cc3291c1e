package accesslog

import (
	"context"
	"slices"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	collectorlogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	access "meshbridge/translate/accesslog"
)

// exportTime bounds how long a collector may take to answer, where the configuration has no limit.
const exportTime = 10 * time.Second

// openTelemetry speaks OTLP: each message is confirmed, so that what is counted as written is there. A message whose
// answer got lost is sent again.
type openTelemetry struct {
	to     *destination
	client collectorlogspb.LogsServiceClient
	node   *corepb.Node

	message *collectorlogspb.ExportLogsServiceRequest
	records int // in message
	// scopes are where the records of a log go, and resources those of each resource, by its encoding.
	scopes    map[*access.Log]*logspb.ScopeLogs
	resources map[string]*logspb.ScopeLogs
}

func newOpenTelemetry(to *destination, conn *grpc.ClientConn, node *corepb.Node) *openTelemetry {
	o := &openTelemetry{to: to, client: collectorlogspb.NewLogsServiceClient(conn), node: node}
	o.reset()
	return o
}

func (o *openTelemetry) reset() {
	o.message, o.records = &collectorlogspb.ExportLogsServiceRequest{}, 0
	o.scopes, o.resources = map[*access.Log]*logspb.ScopeLogs{}, map[string]*logspb.ScopeLogs{}
}

func (o *openTelemetry) add(l *access.Log, e *access.Entry) int {
	scope := o.scopes[l]
	if scope == nil {
		scope = o.scopeOf(l)
		o.scopes[l] = scope
	}
	record := &logspb.LogRecord{TimeUnixNano: uint64(e.Start.UnixNano()), Body: l.Body(e), Attributes: l.Attributes(e)}
	scope.LogRecords = append(scope.LogRecords, record)
	o.records++
	return proto.Size(record)
}

// scopeOf returns where the records of a log's resource go.
func (o *openTelemetry) scopeOf(l *access.Log) *logspb.ScopeLogs {
	resource := &resourcepb.Resource{Attributes: o.resourceOf(l)}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(resource)
	scope := o.resources[string(encoded)]
	if err != nil || scope == nil {
		scope = &logspb.ScopeLogs{}
		o.resources[string(encoded)] = scope
		o.message.ResourceLogs = append(o.message.ResourceLogs, &logspb.ResourceLogs{Resource: resource, ScopeLogs: []*logspb.ScopeLogs{scope}})
	}
	return scope
}

func (o *openTelemetry) resourceOf(l *access.Log) []*commonpb.KeyValue {
	if !l.BuiltinLabels {
		return l.Resource()
	}
	text := func(key, value string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
	}
	return slices.Concat([]*commonpb.KeyValue{
		text("log_name", l.Name), text("zone_name", o.node.GetLocality().GetZone()),
		text("cluster_name", o.node.GetCluster()), text("node_name", o.node.GetId()),
	}, l.Resource())
}

func (o *openTelemetry) send(ctx context.Context) error {
	limit := o.to.timeout
	if limit <= 0 {
		limit = exportTime
	}
	ctx, cancel := context.WithTimeout(o.to.outgoing(ctx), limit)
	defer cancel()
	answer, err := o.client.Export(ctx, o.message)
	if err != nil {
		if repeatable(status.Code(err)) {
			return err
		}
		return &refusal{o.records, err.Error()}
	}
	if n := answer.GetPartialSuccess().GetRejectedLogRecords(); n != 0 {
		return &refusal{int(n), answer.GetPartialSuccess().GetErrorMessage()}
	}
	return nil
}

// repeatable is OTLP's list of the codes after which a message may be sent again.
func repeatable(code codes.Code) bool {
	switch code {
	case codes.Canceled, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return true
	default:
		return false
	}
}

func (*openTelemetry) close(context.Context) {}
