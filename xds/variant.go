package xds

import (
	"context"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
)

// request is a request of either protocol variant.
type request struct {
	node    *corepb.Node // on the first request of a stream only
	typeURL string
	nonce   string         // of the response that is answered, see subscriptions
	nack    *status.Status // why that response is refused

	// Delta only.
	subscribe   []string
	unsubscribe []string
	initial     map[string]string // name to version of what is held, on the first request per type

	// State of the world only.
	version string   // of the last accepted response
	names   []string // all that is subscribed to by name
}

// variant is an open stream of one protocol variant. send and recv may be called concurrently.
type variant interface {
	send(request) error
	recv() (response, error)
}

type deltaStream struct {
	stream discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
}

func openDelta(ctx context.Context, conn *grpc.ClientConn) (variant, error) {
	s, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	return deltaStream{s}, err
}

func (s deltaStream) send(r request) error {
	return s.stream.Send(&discoverypb.DeltaDiscoveryRequest{
		Node:                     r.node,
		TypeUrl:                  r.typeURL,
		ResponseNonce:            r.nonce,
		ErrorDetail:              r.nack,
		ResourceNamesSubscribe:   r.subscribe,
		ResourceNamesUnsubscribe: r.unsubscribe,
		InitialResourceVersions:  r.initial,
	})
}

func (s deltaStream) recv() (response, error) {
	m, err := s.stream.Recv()
	if err != nil {
		return response{}, err
	}
	return fromDelta(m), nil
}

func fromDelta(m *discoverypb.DeltaDiscoveryResponse) response {
	r := response{
		typeURL:   m.GetTypeUrl(),
		version:   m.GetSystemVersionInfo(),
		nonce:     m.GetNonce(),
		resources: make([]received, 0, len(m.GetResources())),
		removed:   m.GetRemovedResources(),

		controlPlane: m.GetControlPlane().GetIdentifier(),
	}
	for _, resource := range m.GetResources() {
		r.resources = append(r.resources, received{resource.GetName(), resource.GetVersion(), resource.GetResource()})
	}
	return r
}

type worldStream struct {
	stream discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesClient
}

func openWorld(ctx context.Context, conn *grpc.ClientConn) (variant, error) {
	s, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	return worldStream{s}, err
}

func (s worldStream) send(r request) error {
	return s.stream.Send(&discoverypb.DiscoveryRequest{
		Node:          r.node,
		TypeUrl:       r.typeURL,
		ResponseNonce: r.nonce,
		ErrorDetail:   r.nack,
		VersionInfo:   r.version,
		ResourceNames: r.names,
	})
}

func (s worldStream) recv() (response, error) {
	m, err := s.stream.Recv()
	if err != nil {
		return response{}, err
	}
	r := response{
		typeURL:   m.GetTypeUrl(),
		version:   m.GetVersionInfo(),
		nonce:     m.GetNonce(),
		resources: make([]received, 0, len(m.GetResources())),

		controlPlane: m.GetControlPlane().GetIdentifier(),
	}
	for _, body := range m.GetResources() {
		r.resources = append(r.resources, received{body: body})
	}
	return r, nil
}
