package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Server answers the application's queries. Its methods are safe for concurrent use.
type Server struct {
	// Set once.
	config      Config
	logger      *slog.Logger
	metrics     *metrics
	forwarder   *forwarder
	sockets     []*socket
	forwarding  chan struct{} // holds a token for each query that is being forwarded
	connections chan struct{} // holds a token for each TCP connection

	names atomic.Pointer[names] // nil before SetNames
}

// New opens the server's sockets, so that Addresses tells where it is; it answers once Run runs, which
// must be called, for it closes them.
func New(config Config) (*Server, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(config.Registerer)
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	sockets, err := config.listen()
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	s := &Server{
		config:      config,
		logger:      config.Logger,
		metrics:     m,
		sockets:     sockets,
		forwarding:  make(chan struct{}, config.MaxForwarded),
		connections: make(chan struct{}, config.MaxConnections),
	}
	s.forwarder = &forwarder{
		resolvConf: &resolvConf{path: config.ResolvConf, fixed: config.Upstreams, own: s.Addresses(), logger: config.Logger},
		parallel:   config.Parallel, timeout: config.Timeout, metrics: m, logger: config.Logger,
	}
	return s, nil
}

// Addresses returns where queries are answered, over UDP and TCP.
func (s *Server) Addresses() []netip.AddrPort {
	var list []netip.AddrPort
	for _, socket := range s.sockets {
		list = append(list, socket.address)
	}
	return list
}

// SetNames replaces the name table. Before the first call nothing is answered (SERVFAIL), as by Istio's
// agent: a name of the mesh must not lead outside of it because the table is not there yet.
func (s *Server) SetNames(hosts []Host) {
	n := newNames(hosts, s.config.Namespace, s.config.Domain)
	s.names.Store(&n)
	s.metrics.names.Set(float64(len(n)))
}

// Run serves until ctx ends, and returns after its goroutines have ended.
func (s *Server) Run(ctx context.Context) error {
	s.forwarder.resolvConf.get(ctx)
	s.logger.LogAttrs(ctx, slog.LevelInfo, "DNS queries are answered", slog.Any("addresses", s.Addresses()))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	for _, socket := range s.sockets {
		running.Go(func() { s.serveUDP(ctx, socket.udp, &running) })
		running.Go(func() { s.serveTCP(ctx, socket.tcp, &running) })
	}
	<-ctx.Done()
	var errs []error
	for _, socket := range s.sockets {
		// What has been read is answered before the socket closes: another process that has it, too, will not
		// see these queries.
		errs = append(errs, socket.udp.SetReadDeadline(time.Unix(1, 0)), socket.tcp.Close())
	}
	running.Wait()
	for _, socket := range s.sockets {
		errs = append(errs, socket.udp.Close())
	}
	return errors.Join(errs...)
}

// answerHere answers what needs nobody else. response is nil for what is to be forwarded; known tells
// that the table has the name.
func (s *Server) answerHere(ctx context.Context, q *query) (response []byte, known bool) {
	table := s.names.Load()
	if table == nil {
		s.count(answeredEarly)
		return q.fail(dnsmessage.RCodeServerFailure), false
	}
	if q.version != 0 {
		s.count(answeredBad)
		return q.fail(rcodeBadVersion), false
	}
	if q.class != dnsmessage.ClassINET {
		return nil, false
	}
	found, alias := table.lookup(q.name, s.forwarder.resolvConf.get(ctx).search)
	if found == nil {
		return nil, false
	}
	if q.kind != dnsmessage.TypeA && q.kind != dnsmessage.TypeAAAA {
		return nil, true
	}
	response, err := q.answer(found, alias)
	if err != nil {
		s.count(answeredFailed)
		return q.fail(dnsmessage.RCodeServerFailure), true
	}
	s.count(answeredMesh)
	return response, true
}

// forward has a nameserver answer. A name that the table knows exists, whatever it has no records of:
// nameservers may never have heard of it.
func (s *Server) forward(ctx context.Context, q *query, network string, known bool) []byte {
	response, err := s.forwarder.forward(ctx, q, network)
	if err == nil {
		response, err = fit(response, q.limit)
	}
	if err != nil {
		s.count(answeredFailed)
		return q.fail(dnsmessage.RCodeServerFailure)
	}
	if known && dnsmessage.RCode(response[3]&rcodeMask) == dnsmessage.RCodeNameError {
		response[3] &^= rcodeMask
	}
	s.count(answeredUpstream)
	return response
}

// tryForward forwards where there is room.
func (s *Server) tryForward() (release func(), ok bool) {
	select {
	case s.forwarding <- struct{}{}:
		return func() { <-s.forwarding }, true
	default:
		s.count(answeredBusy)
		return nil, false
	}
}

// parse reads a message; where it is no query, response is what to say to that, or nil for nothing.
func (s *Server) parse(message []byte, overUDP bool) (q query, response []byte, ok bool) {
	q, fault := parseQuery(message, overUDP)
	if fault == faultNone {
		return q, nil, true
	}
	s.count(answeredBad)
	if fault == faultSilent {
		return q, nil, false
	}
	return q, refuse(message, dnsmessage.RCode(fault)), false
}

func (s *Server) count(answer string) { s.metrics.queries.WithLabelValues(answer).Inc() }
