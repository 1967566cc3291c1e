// Package xdstest is a scripted management server for tests: real gRPC over loopback, and by
// default the habits of istiod that clients have to cope with.
//
//	srv := xdstest.NewServer(t)
//	srv.Set(cluster, endpoints)            // and whenever something is to change
//	client, _ := xds.New(xds.Config{Address: srv.Addr(), Node: xdstest.Node()})
//	...
//	srv.WaitAnswered(xds.ClusterType)      // until the client has ACKed or NACKed
//
// Like istiod, it leaves resource versions empty; sends everything again on a new stream, naming in
// removed_resources what the client holds and it has no longer; answers wildcard subscriptions to
// clusters and listeners, and others by name; does not answer names that do not exist; sends
// nothing again on a NACK; and sends state-of-the-world endpoints and routes only as far as they
// changed. Requests are recorded; Server.Send sends what no server should.
package xdstest

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/xds"
)

// ProxyConfigType is a type of istiod's that the client knows nothing of.
const ProxyConfigType = "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig"

// ControlPlane is what the server says of itself, in istiod's form.
const ControlPlane = `{"Component":"istiod","ID":"istiod-7d9c5b6f4-x2x7z","Info":{"version":"1.31.0"}}`

func controlPlane() *corepb.ControlPlane { return &corepb.ControlPlane{Identifier: ControlPlane} }

// patience is how long Wait functions wait for what should take milliseconds.
const patience = 20 * time.Second

// Server is a management server. Its methods are safe for concurrent use, and fail the test when
// they cannot do what they say.
type Server struct {
	t       testing.TB
	options options

	mu       sync.Mutex
	changed  *sync.Cond // of anything below
	address  string
	grpc     *grpc.Server
	serving  chan struct{} // closed when grpc.Serve has returned
	refusal  error
	world    map[xds.Key]*anypb.Any
	log      []entry
	streams  []*stream // by number, ended ones too
	requests []Request
	nonce    int
}

type options struct {
	tls   *tls.Config
	token string
}

// entry is one change of the world, or a push of a whole type where the name is absent.
type entry struct {
	xds.Key
	whole bool
}

// NewServer starts a plaintext server on a loopback port. It stops with the test.
func NewServer(tb testing.TB) *Server {
	tb.Helper()
	return newServer(tb, options{})
}

func newServer(tb testing.TB, o options) *Server {
	tb.Helper()
	s := &Server{t: tb, options: o, address: "127.0.0.1:0", world: map[xds.Key]*anypb.Any{}}
	s.changed = sync.NewCond(&s.mu)
	s.Start()
	tb.Cleanup(s.Stop)
	return s
}

// Addr returns host:port. It stays the same over Stop and Start.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

// Start listens again after Stop, with the same resources, as a restarted istiod does.
func (s *Server) Start() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grpc != nil {
		return
	}
	listener, err := net.Listen("tcp", s.address) //nolint:noctx // returns at once
	if err != nil {
		s.t.Fatalf("xdstest: %v", err)
	}
	s.address = listener.Addr().String()
	var grpcOptions []grpc.ServerOption
	if s.options.tls != nil {
		grpcOptions = append(grpcOptions, grpc.Creds(credentials.NewTLS(s.options.tls)))
	}
	server := grpc.NewServer(grpcOptions...)
	discoverypb.RegisterAggregatedDiscoveryServiceServer(server, service{server: s})
	serving := make(chan struct{})
	s.grpc, s.serving = server, serving
	go func() {
		defer close(serving)
		// It ends by Stop; a failure shows as a client that cannot connect.
		_ = server.Serve(listener)
	}()
}

// Stop closes the port and breaks every connection, as a killed process does.
func (s *Server) Stop() {
	s.mu.Lock()
	server, serving := s.grpc, s.serving
	s.grpc = nil
	s.mu.Unlock()
	if server != nil {
		server.Stop()
		<-serving
	}
}

// CloseStreams ends every stream from the server's side: in order if err is nil, with a status
// otherwise. The connections stay.
func (s *Server) CloseStreams(err error) {
	s.update(func() {
		for _, stream := range s.streams {
			if !stream.closing {
				stream.closing, stream.err = true, err
			}
		}
	})
}

// Refuse ends every stream with err as soon as it has sent its first request, until it is called
// with nil.
func (s *Server) Refuse(err error) { s.update(func() { s.refusal = err }) }

// update changes the state and wakes the streams and waiters.
func (s *Server) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.changed.Broadcast()
	for _, stream := range s.streams {
		stream.poke()
	}
}

// Set adds or replaces resources and pushes them to the streams that want them, in istiod's order:
// clusters, endpoints, listeners, routes.
func (s *Server) Set(resources ...proto.Message) {
	bodies := make([]*anypb.Any, 0, len(resources))
	keys := make([]xds.Key, 0, len(resources))
	for _, r := range resources {
		body := Any(r)
		bodies = append(bodies, body)
		keys = append(keys, xds.Key{Type: body.GetTypeUrl(), Name: name(r)})
	}
	s.update(func() {
		for i, key := range keys {
			s.world[key] = bodies[i]
			s.log = append(s.log, entry{Key: key})
		}
	})
}

// SetRaw adds or replaces a resource by its bytes, which need not be valid, and pushes it.
func (s *Server) SetRaw(name string, body *anypb.Any) {
	key := xds.Key{Type: body.GetTypeUrl(), Name: name}
	s.update(func() {
		s.world[key] = body
		s.log = append(s.log, entry{Key: key})
	})
}

// Remove takes resources away. As with istiod, subscribers hear of it for wildcard types only.
func (s *Server) Remove(typeURL string, names ...string) {
	s.update(func() {
		for _, n := range names {
			key := xds.Key{Type: typeURL, Name: n}
			delete(s.world, key)
			s.log = append(s.log, entry{Key: key})
		}
	})
}

// Push sends all resources of the types again although nothing changed, as istiod does with
// listeners and routes on any change of configuration. Without types it sends all.
func (s *Server) Push(typeURLs ...string) {
	if len(typeURLs) == 0 {
		typeURLs = order()
	}
	s.update(func() {
		for _, url := range typeURLs {
			s.log = append(s.log, entry{Key: xds.Key{Type: url}, whole: true})
		}
	})
}

// Response is a response to send as it is.
type Response struct {
	TypeURL   string
	Resources []Resource
	Removed   []string // delta only
	Version   string   // of the response; default: made up
}

// Resource is a resource of a Response.
type Resource struct {
	Name    string // delta only
	Version string // delta only
	Body    *anypb.Any
}

// Send sends a response on every open stream, whether the client has subscribed or not.
func (s *Server) Send(r Response) {
	s.update(func() {
		for _, stream := range s.streams {
			if !stream.closing {
				stream.scripted = append(stream.scripted, r)
			}
		}
	})
}

// Any wraps a message as a resource; equal messages give equal bytes.
func Any(m proto.Message) *anypb.Any {
	body := &anypb.Any{}
	if err := anypb.MarshalFrom(body, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(err) // only messages that cannot be, such as with text that is not UTF-8
	}
	return body
}

// order is the order of istiod's pushes.
func order() []string {
	return []string{
		xds.ClusterType, xds.EndpointType, xds.ListenerType, xds.RouteType,
		xds.SecretType, xds.ExtensionType, xds.NameTableType, ProxyConfigType,
	}
}

// isWildcard tells which types istiod sends as a whole.
func isWildcard(typeURL string) bool {
	return slices.Contains([]string{xds.ClusterType, xds.ListenerType, xds.NameTableType, ProxyConfigType}, typeURL)
}

func name(m proto.Message) string {
	switch m := m.(type) {
	case interface{ GetClusterName() string }:
		return m.GetClusterName()
	case interface{ GetName() string }:
		return m.GetName()
	default:
		return ""
	}
}

func (s *Server) nextNonce() string {
	s.nonce++
	return fmt.Sprintf("nonce-%d", s.nonce)
}
