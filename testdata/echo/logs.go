package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"

	accesslogservicepb "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	collectorlogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// serveLogs is an access log service, of Envoy's and of OpenTelemetry's kind. It prints each message that comes as
// JSON in a line of its own.
func serveLogs(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("logs", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:9000", "address")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	accesslogservicepb.RegisterAccessLogServiceServer(server, logService{})
	collectorlogspb.RegisterLogsServiceServer(server, logService{})
	defer context.AfterFunc(ctx, server.Stop)()
	fmt.Println("ready")
	return unlessOver(ctx, server.Serve(l))
}

type logService struct {
	accesslogservicepb.UnimplementedAccessLogServiceServer
	collectorlogspb.UnimplementedLogsServiceServer
}

// StreamAccessLogs takes what Envoy sends.
func (s logService) StreamAccessLogs(stream accesslogservicepb.AccessLogService_StreamAccessLogsServer) error {
	var id *accesslogservicepb.StreamAccessLogsMessage_Identifier
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&accesslogservicepb.StreamAccessLogsResponse{})
		}
		if err != nil {
			return err
		}
		if m.GetIdentifier() != nil {
			id = m.GetIdentifier()
		}
		m.Identifier = id
		if err := s.print(m); err != nil {
			return err
		}
	}
}

// Export takes what is sent by OTLP.
func (s logService) Export(_ context.Context, r *collectorlogspb.ExportLogsServiceRequest) (*collectorlogspb.ExportLogsServiceResponse, error) {
	return &collectorlogspb.ExportLogsServiceResponse{}, s.print(r)
}

func (logService) print(m proto.Message) error {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	return nil
}
