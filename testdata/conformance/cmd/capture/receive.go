package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/testdata/conformance/istiod"
	"meshbridge/testdata/conformance/recording"
)

const token = "token"

// receiver is a proxy that takes everything and refuses nothing.
type receiver struct {
	stream    grpc.BidiStreamingClient[discoverypb.DeltaDiscoveryRequest, discoverypb.DeltaDiscoveryResponse]
	resources recording.Resources
	wanted    map[string]map[string]bool // by type URL, the names asked for
}

// receive connects as the proxy in the node file and returns once istiod has
// answered everything that the proxy would ask for.
func receive(ctx context.Context, server *istiod.Server, nodeFile string) (recording.Resources, error) {
	node, err := readNode(nodeFile)
	if err != nil {
		return nil, err
	}
	conn, err := connect(server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	r := &receiver{stream: stream, resources: recording.Resources{}, wanted: map[string]map[string]bool{}}
	wildcards := wildcardsOf(node)
	for i, typeURL := range wildcards {
		request := &discoverypb.DeltaDiscoveryRequest{TypeUrl: typeURL}
		if i == 0 {
			request.Node = node
		}
		if err := stream.Send(request); err != nil {
			return nil, err
		}
	}
	unanswered := func(typeURL string) bool { return r.resources[typeURL] == nil }
	for slices.ContainsFunc(wildcards, unanswered) || len(r.missing()) > 0 {
		if err := r.next(); err != nil {
			return nil, fmt.Errorf("%w; still missing: %q", err, r.missing())
		}
	}
	return r.resources, stream.CloseSend()
}

// wildcardsOf lists the types of which a proxy wants everything.
func wildcardsOf(node *corepb.Node) []string {
	switch {
	case node.GetMetadata().GetFields()["GENERATOR"] != nil:
		return []string{recording.ListenerType} // proxyless: clusters are asked for by name
	case strings.HasPrefix(node.GetId(), "sidecar~"):
		return []string{recording.ClusterType, recording.ListenerType, recording.NameType}
	default:
		return []string{recording.ClusterType, recording.ListenerType}
	}
}

func readNode(file string) (*corepb.Node, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var node corepb.Node
	if err := protojson.Unmarshal(text, &node); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &node, nil
}

func connect(server *istiod.Server) (*grpc.ClientConn, error) {
	limit := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256 << 20))
	if server.Secure == "" {
		return grpc.NewClient(server.GRPC, limit, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(server.RootCert) {
		return nil, errors.New("istiod has no root certificate")
	}
	return grpc.NewClient(server.Secure, limit, grpc.WithPerRPCCredentials(bearer{}),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			RootCAs: roots, ServerName: "istiod.istio-system.svc", MinVersion: tls.VersionTLS12,
		})))
}

// bearer authenticates with the token that istiod was told to accept.
type bearer struct{}

func (bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + token}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// missing lists what was asked for by name and has not come.
func (r *receiver) missing() []string {
	var missing []string
	for typeURL, names := range r.wanted {
		for name := range names {
			if r.resources[typeURL][name] == nil {
				missing = append(missing, name)
			}
		}
	}
	slices.Sort(missing)
	return missing
}

// next takes one response, and asks for what it refers to.
func (r *receiver) next() error {
	response, err := r.stream.Recv()
	if err != nil {
		return err
	}
	if r.resources[response.GetTypeUrl()] == nil {
		r.resources[response.GetTypeUrl()] = map[string]*anypb.Any{}
	}
	refers := recording.References{}
	for _, resource := range response.GetResources() {
		r.resources[response.GetTypeUrl()][resource.GetName()] = resource.GetResource()
		if err := refers.Collect(resource.GetResource()); err != nil {
			return fmt.Errorf("%s: %w", resource.GetName(), err)
		}
	}
	if err := r.stream.Send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: response.GetTypeUrl(), ResponseNonce: response.GetNonce()}); err != nil {
		return err
	}
	for typeURL, names := range refers {
		if r.wanted[typeURL] == nil {
			r.wanted[typeURL] = map[string]bool{}
		}
		maps.DeleteFunc(names, func(name string, _ bool) bool { return r.wanted[typeURL][name] })
		maps.Copy(r.wanted[typeURL], names)
		request := &discoverypb.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: slices.Sorted(maps.Keys(names))}
		if len(names) == 0 {
			continue
		}
		if err := r.stream.Send(request); err != nil {
			return err
		}
	}
	return nil
}
