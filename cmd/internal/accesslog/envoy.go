package accesslog

import (
	"context"
	"errors"
	"io"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogservicepb "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	access "meshbridge/translate/accesslog"
)

const (
	// answerTime is how long a service has to end a stream that we have ended.
	answerTime = 2 * time.Second
	// refuseTime is how long a service has to refuse a new stream, whose first message is sent again then.
	refuseTime = 200 * time.Millisecond
)

// envoy speaks Envoy's access log service: a stream of messages that nobody confirms. What was sent when a stream
// broke may be lost, as from Envoy; messages that could not be sent are sent on the next stream.
type envoy struct {
	to     *destination
	target *target
	client accesslogservicepb.AccessLogServiceClient
	node   *corepb.Node

	stream *envoyStream // nil where none is open
	http   []*accesslogpb.HTTPAccessLogEntry
	tcp    []*accesslogpb.TCPAccessLogEntry
}

// envoyStream is an open stream.
type envoyStream struct {
	grpc.ClientStreamingClient[accesslogservicepb.StreamAccessLogsMessage, accesslogservicepb.StreamAccessLogsResponse]
	cancel context.CancelFunc
	// moved is closed when the service has other endpoints than when the stream was opened.
	moved <-chan struct{}
	// ended is closed when the service has ended the stream, for the reason err.
	ended chan struct{}
	err   error
	begun bool // a message was sent
}

func newEnvoy(to *destination, t *target, conn *grpc.ClientConn, node *corepb.Node) *envoy {
	return &envoy{to: to, target: t, client: accesslogservicepb.NewAccessLogServiceClient(conn), node: node}
}

func (v *envoy) add(l *access.Log, e *access.Entry) int {
	if v.to.tcp {
		entry := l.TCPEntry(e)
		v.tcp = append(v.tcp, entry)
		return proto.Size(entry)
	}
	entry := l.HTTPEntry(e)
	v.http = append(v.http, entry)
	return proto.Size(entry)
}

func (v *envoy) reset() {
	v.http, v.tcp = nil, nil // gRPC may still look at a message that was sent
}

func (v *envoy) send(ctx context.Context) error {
	if s := v.stream; s != nil && s.stale() {
		v.close(ctx) // balances the load, and lets endpoints that are gone go
		if s.complaint() {
			return s.err
		}
	}
	if v.stream == nil {
		if err := v.open(ctx); err != nil {
			return err
		}
	}
	message := &accesslogservicepb.StreamAccessLogsMessage{}
	if v.to.tcp {
		message.LogEntries = &accesslogservicepb.StreamAccessLogsMessage_TcpLogs{
			TcpLogs: &accesslogservicepb.StreamAccessLogsMessage_TCPAccessLogEntries{LogEntry: v.tcp},
		}
	} else {
		message.LogEntries = &accesslogservicepb.StreamAccessLogsMessage_HttpLogs{
			HttpLogs: &accesslogservicepb.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: v.http},
		}
	}
	if !v.stream.begun {
		message.Identifier = &accesslogservicepb.StreamAccessLogsMessage_Identifier{Node: v.node, LogName: v.to.name}
	}
	if err := v.stream.Send(message); err != nil {
		return v.drop(err)
	}
	if v.stream.begun {
		return nil
	}
	v.stream.begun = true
	timer := time.NewTimer(refuseTime)
	defer timer.Stop()
	select {
	case <-v.stream.ended:
		return v.drop(io.EOF)
	case <-ctx.Done():
	case <-timer.C:
	}
	return nil
}

func (v *envoy) open(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := v.client.StreamAccessLogs(v.to.outgoing(ctx))
	if err != nil {
		cancel()
		return err
	}
	v.stream = &envoyStream{ClientStreamingClient: stream, cancel: cancel, moved: v.target.changed(), ended: make(chan struct{})}
	go v.stream.receive()
	return nil
}

// receive waits for the service to end the stream.
func (s *envoyStream) receive() {
	defer close(s.ended)
	s.err = s.RecvMsg(new(accesslogservicepb.StreamAccessLogsResponse))
}

// stale tells that the stream has ended, or leads to an endpoint that may be gone.
func (s *envoyStream) stale() bool {
	select {
	case <-s.ended:
		return true
	case <-s.moved:
		return true
	default:
		return false
	}
}

// complaint tells that the service has ended the stream for another reason than that it goes away. It is called
// when the stream has ended.
func (s *envoyStream) complaint() bool {
	if s.err == nil || errors.Is(s.err, io.EOF) {
		return false
	}
	code := status.Code(s.err)
	return code != codes.Unavailable && code != codes.Canceled
}

// drop gives up the stream, and returns why it has ended: Send tells only that it has.
func (v *envoy) drop(err error) error {
	s := v.stream
	v.stream = nil
	if !errors.Is(err, io.EOF) {
		s.cancel()
	}
	<-s.ended
	s.cancel()
	switch {
	case !errors.Is(err, io.EOF):
		return err
	case s.err == nil || errors.Is(s.err, io.EOF):
		return errors.New("the service has ended the stream")
	}
	return s.err
}

func (v *envoy) close(ctx context.Context) {
	s := v.stream
	if s == nil {
		return
	}
	v.stream = nil
	timer := time.NewTimer(answerTime)
	defer timer.Stop()
	if s.CloseSend() == nil {
		select {
		case <-s.ended:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	s.cancel()
	<-s.ended
}
