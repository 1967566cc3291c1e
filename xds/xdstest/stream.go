package xdstest

import (
	"context"
	"maps"
	"slices"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/xds"
)

// Request is a request that the server received, of either protocol variant.
type Request struct {
	Stream  int  // number of the stream, from 0
	Delta   bool // else state of the world
	Node    *corepb.Node
	TypeURL string
	Nonce   string
	// Error is the message of error_detail, for a NACK.
	Error string

	// Delta only.
	Subscribe   []string
	Unsubscribe []string
	Initial     map[string]string

	// State of the world only.
	Version string
	Names   []string
}

// service implements the ADS service; it is apart from Server to keep Server's methods few.
type service struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	server *Server
}

// StreamAggregatedResources implements the state-of-the-world variant.
func (s service) StreamAggregatedResources(g discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.server.serve(g.Context(), wire{
		receive: func() (Request, error) {
			m, err := g.Recv()
			return Request{
				Node: m.GetNode(), TypeURL: m.GetTypeUrl(), Nonce: m.GetResponseNonce(),
				Error: m.GetErrorDetail().GetMessage(), Version: m.GetVersionInfo(), Names: m.GetResourceNames(),
			}, err
		},
		send: func(nonce string, r Response) error {
			bodies := make([]*anypb.Any, 0, len(r.Resources))
			for _, resource := range r.Resources {
				bodies = append(bodies, resource.Body)
			}
			return g.Send(&discoverypb.DiscoveryResponse{
				TypeUrl: r.TypeURL, VersionInfo: r.Version, Nonce: nonce, Resources: bodies, ControlPlane: controlPlane(),
			})
		},
	})
}

// DeltaAggregatedResources implements the delta variant.
func (s service) DeltaAggregatedResources(g discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.server.serve(g.Context(), wire{
		delta: true,
		receive: func() (Request, error) {
			m, err := g.Recv()
			return Request{
				Delta: true, Node: m.GetNode(), TypeURL: m.GetTypeUrl(), Nonce: m.GetResponseNonce(),
				Error: m.GetErrorDetail().GetMessage(), Subscribe: m.GetResourceNamesSubscribe(),
				Unsubscribe: m.GetResourceNamesUnsubscribe(), Initial: m.GetInitialResourceVersions(),
			}, err
		},
		send: func(nonce string, r Response) error {
			resources := make([]*discoverypb.Resource, 0, len(r.Resources))
			for _, resource := range r.Resources {
				resources = append(resources, &discoverypb.Resource{
					Name: resource.Name, Version: resource.Version, Resource: resource.Body,
				})
			}
			return g.Send(&discoverypb.DeltaDiscoveryResponse{
				TypeUrl: r.TypeURL, SystemVersionInfo: r.Version, Nonce: nonce,
				Resources: resources, RemovedResources: r.Removed, ControlPlane: controlPlane(),
			})
		},
	})
}

type wire struct {
	delta   bool
	receive func() (Request, error)
	send    func(nonce string, r Response) error
}

// stream is one ADS stream. All but wake is guarded by Server.mu.
type stream struct {
	delta    bool
	wake     chan struct{} // holds one token while there may be something to do
	closing  bool
	err      error
	requests []Request // received and not acted upon
	scripted []Response
	read     int // how much of the server's log has been pushed
	types    map[string]*watched
}

// watched is what a client has subscribed to of one type.
type watched struct {
	names    map[string]bool // nil for a wildcard
	sent     string          // nonce of the last response
	answered string          // nonce of the last response that was ACKed or NACKed
}

func (s *stream) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// serve runs a stream: one goroutine receives and this one sends.
func (s *Server) serve(ctx context.Context, w wire) error {
	if err := s.authenticate(ctx); err != nil {
		return err
	}
	st := &stream{delta: w.delta, wake: make(chan struct{}, 1), types: map[string]*watched{}}
	var number int
	s.update(func() {
		number = len(s.streams)
		s.streams = append(s.streams, st)
		st.read = len(s.log)
	})
	defer s.update(func() { st.closing = true })

	go func() {
		for {
			r, err := w.receive()
			if err != nil {
				s.update(func() { st.closing = true })
				return
			}
			r.Stream = number
			s.update(func() {
				s.requests = append(s.requests, r)
				st.requests = append(st.requests, r)
			})
		}
	}()

	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-st.wake:
		}
		responses, done, err := s.work(st)
		if done {
			return err
		}
		for _, r := range responses {
			if err := w.send(r.nonce, r.Response); err != nil {
				return err
			}
		}
	}
}

func (s *Server) authenticate(ctx context.Context) error {
	if s.options.token == "" {
		return nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get("authorization"), []string{"Bearer " + s.options.token}) {
		return status.Error(codes.Unauthenticated, "authentication failure")
	}
	return nil
}

type numbered struct {
	nonce string
	Response
}

// work takes what has come up for a stream and returns what to send.
func (s *Server) work(st *stream) (responses []numbered, done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.closing {
		return nil, true, st.err
	}
	add := func(r Response) {
		nonce := s.nextNonce()
		if r.Version == "" {
			r.Version = "version-of-" + nonce
		}
		if w := st.types[r.TypeURL]; w != nil {
			w.sent = nonce
		}
		responses = append(responses, numbered{nonce, r})
	}
	for _, r := range st.requests {
		if s.refusal != nil {
			return nil, true, s.refusal
		}
		if response, ok := s.answer(st, r); ok {
			add(response)
		}
	}
	st.requests = nil
	for _, response := range s.pushes(st) {
		add(response)
	}
	for _, response := range st.scripted {
		add(response)
	}
	st.scripted = nil
	s.changed.Broadcast()
	return responses, false, nil
}

// answer acts on a request.
func (s *Server) answer(st *stream, r Request) (Response, bool) {
	w := st.types[r.TypeURL]
	first := w == nil
	switch {
	case first:
		w = &watched{}
		if !isWildcard(r.TypeURL) {
			w.names = map[string]bool{}
		}
		st.types[r.TypeURL] = w
	case r.Nonce != "" && r.Nonce != w.sent:
		return Response{}, false // out of date
	case r.Nonce != "":
		w.answered = r.Nonce
		if st.delta || r.Error != "" {
			return Response{}, false
		}
	}
	var added []string
	if st.delta {
		added = r.Subscribe
		for _, n := range r.Unsubscribe {
			delete(w.names, n)
		}
	} else {
		for _, n := range r.Names {
			if !w.names[n] {
				added = append(added, n)
			}
		}
		if w.names != nil {
			w.names = map[string]bool{}
			for _, n := range r.Names {
				w.names[n] = true
			}
		}
	}
	if w.names == nil {
		if !first {
			return Response{}, false
		}
		response := s.whole(st, r.TypeURL)
		for _, n := range slices.Sorted(maps.Keys(r.Initial)) {
			if s.world[xds.Key{Type: r.TypeURL, Name: n}] == nil {
				response.Removed = append(response.Removed, n)
			}
		}
		return response, true
	}
	for _, n := range added {
		w.names[n] = true
	}
	response := s.named(r.TypeURL, added)
	return response, len(response.Resources) > 0
}

// pushes returns what the log says since the last time.
func (s *Server) pushes(st *stream) []Response {
	news := map[string]map[string]bool{}
	whole := map[string]bool{}
	for _, e := range s.log[st.read:] {
		if e.whole {
			whole[e.Type] = true
			continue
		}
		if news[e.Type] == nil {
			news[e.Type] = map[string]bool{}
		}
		news[e.Type][e.Name] = true
	}
	st.read = len(s.log)
	var responses []Response
	types := order()
	for _, url := range slices.Sorted(maps.Keys(news)) {
		if !slices.Contains(types, url) {
			types = append(types, url)
		}
	}
	for _, url := range types {
		w := st.types[url]
		if w == nil || !whole[url] && news[url] == nil {
			continue
		}
		wanted := slices.Sorted(maps.Keys(news[url]))
		if w.names != nil {
			wanted = slices.DeleteFunc(wanted, func(n string) bool { return !w.names[n] })
		}
		response := s.named(url, wanted)
		if whole[url] || w.names == nil && !st.delta {
			response = s.whole(st, url)
		}
		if w.names == nil && st.delta {
			for _, n := range slices.Sorted(maps.Keys(news[url])) {
				if s.world[xds.Key{Type: url, Name: n}] == nil {
					response.Removed = append(response.Removed, n)
				}
			}
		}
		if w.names == nil || len(response.Resources) > 0 {
			responses = append(responses, response)
		}
	}
	return responses
}

// whole returns all resources of a type that a stream wants.
func (s *Server) whole(st *stream, typeURL string) Response {
	var names []string
	for key := range s.world {
		if w := st.types[typeURL]; key.Type == typeURL && (w.names == nil || w.names[key.Name]) {
			names = append(names, key.Name)
		}
	}
	slices.Sort(names)
	return s.named(typeURL, names)
}

func (s *Server) named(typeURL string, names []string) Response {
	r := Response{TypeURL: typeURL}
	for _, n := range names {
		if body := s.world[xds.Key{Type: typeURL, Name: n}]; body != nil {
			r.Resources = append(r.Resources, Resource{Name: n, Body: body})
		}
	}
	return r
}
