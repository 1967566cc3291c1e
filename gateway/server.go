package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"meshbridge/gateway/auth"
	"meshbridge/store"
)

const (
	raftTerm = 2 // what a fresh etcd of one member shows

	stopTimeout = 5 * time.Second // for what is in flight when the server stops
	// linger is for connections that were accepted before their socket was handed over.
	linger = time.Second
)

// Server serves a store. All methods may be called concurrently.
type Server struct {
	cfg      Config
	store    *store.Store
	auth     *auth.Authority
	log      *slog.Logger
	metrics  *metrics
	base64   *base64Pairs
	delivery delivery

	alarms    alarms
	downgrade downgrade
	peerURLs  atomic.Pointer[[]string] // of the member, as they were last updated
	snapshots chan struct{}            // of one element, which whoever makes a snapshot puts in

	buffers sync.Pool     // of *[]byte, scratch space for HTTP responses
	ready   chan struct{} // always closed
}

// New makes a server. It listens to nothing until Serve is called.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil {
		return nil, errors.New("gateway: Config.Store is not set")
	}
	if cfg.HoldTimeout < 0 || cfg.ProgressInterval < 0 {
		return nil, errors.New("gateway: Config.HoldTimeout and Config.ProgressInterval may not be negative")
	}
	if err := cfg.Limits.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if cfg.Auth == nil {
		var err error
		if cfg.Auth, err = auth.New(auth.Config{Logger: cfg.Logger}); err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
	}
	s := &Server{cfg: cfg, store: cfg.Store, auth: cfg.Auth, log: cfg.Logger, metrics: newMetrics(), base64: newBase64Pairs(), ready: make(chan struct{})}
	s.delivery.watched = make(chan struct{})
	close(s.ready)
	s.snapshots = make(chan struct{}, 1)
	for _, a := range cfg.Alarms {
		s.alarms.set(alarm{kind: a.GetAlarm(), member: a.GetMemberID()}, true)
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(newCollector(s)); err != nil {
			return nil, fmt.Errorf("gateway: registering metrics: %w", err)
		}
	}
	return s, nil
}

// header is a response header at a revision of the store.
func (s *Server) header(revision int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{
		ClusterId: s.cfg.ClusterID, MemberId: s.cfg.MemberID, Revision: revision, RaftTerm: raftTerm,
	}
}

// ErrHandedOver is the cause of the end of Serve's context where another process serves the same
// listening socket from then on.
var ErrHandedOver = errors.New("the listening socket was handed over")

// Serve serves gRPC and HTTP/1.1 on l until ctx ends, and closes l. Then watch streams end cleanly
// (over HTTP with the last chunk, over gRPC as Unavailable), requests in flight get a few seconds to
// finish, and Serve returns nil after the last of its goroutines. It may be called for several
// listeners at a time.
//
// Where the cause of ctx's end is ErrHandedOver, connections that were accepted before have a moment more
// to say what they want, and are answered: their clients must not notice anything.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	e := &endpoint{
		Server: s, stopping: make(chan struct{}),
		conns: make(map[net.Conn]struct{}), fresh: make(map[net.Conn]struct{}),
	}
	return e.serve(ctx, l)
}

// endpoint is one call of Serve.
type endpoint struct {
	*Server
	stopping chan struct{} // closed when every stream has to end

	streams sync.WaitGroup // goroutines of streams that neither server waits for
	sockets sync.WaitGroup // WebSockets, whose calls may need the gRPC server
	pace    pace

	mu    sync.Mutex
	conns map[net.Conn]struct{} // of HTTP watches; guarded by mu
	fresh map[net.Conn]struct{} // HTTP connections without a complete request yet; guarded by mu
	// stopped tells that fresh connections are not waited for any more; guarded by mu.
	stopped bool
}

func (e *endpoint) serve(ctx context.Context, l net.Listener) error {
	grpcConns, httpConns := newHandoff(l.Addr()), newHandoff(l.Addr())
	grpcServer := e.grpcServer()
	// The generated JSON gateway speaks to the gRPC server as any client does, minus the network.
	loop, err := grpc.NewClient("passthrough:///in-memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return grpcConns.pipe() }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
	)
	if err != nil {
		return errors.Join(fmt.Errorf("gateway: in-memory connection: %w", err), l.Close())
	}
	// Connections outlive the listener where that was handed over.
	conns, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	handler, err := e.httpHandler(conns, loop)
	if err != nil {
		return errors.Join(fmt.Errorf("gateway: JSON handlers: %w", err), loop.Close(), l.Close())
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // or so it looks to the server, see listen.go
	httpServer := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: e.cfg.Limits.HeaderTimeout,
		IdleTimeout:       e.cfg.Limits.IdleTimeout,
		MaxHeaderBytes:    e.cfg.Limits.HeaderBytes,
		ConnState:         e.connState,
		ConnContext:       connContext,
		Protocols:         protocols,
		ErrorLog:          slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ignore(grpcServer.Serve(grpcConns), grpc.ErrServerStopped) })
	group.Go(func() error { return ignore(httpServer.Serve(httpConns), http.ErrServerClosed) })
	group.Go(func() error { return e.split(conns, ctx, l, grpcConns, httpConns) })
	group.Go(func() error {
		<-ctx.Done()
		// The listener goes first: a client whose stream ends comes back at once, and has to
		// find the next server or none.
		handedOver := errors.Is(context.Cause(ctx), ErrHandedOver)
		if !handedOver {
			end()
		}
		err := ignore(l.Close(), net.ErrClosed)
		e.endStreams()
		if handedOver {
			_ = pause(conns, linger)
			end()
		}
		e.stop(context.WithoutCancel(ctx), httpServer, grpcServer, loop)
		return err
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("gateway: serving %s: %w", l.Addr(), err)
	}
	return nil
}

// endStreams ends the streams.
func (e *endpoint) endStreams() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.stopping) // under mu: an HTTP watch either sees it or is in conns
	deadline := time.Now().Add(stopTimeout)
	for conn := range e.conns {
		// A reader that has stopped reading may not hold up the end of the others. An error
		// means that the connection is gone already.
		_ = conn.SetWriteDeadline(deadline)
	}
}

// stop lets the rest finish, and cuts off what does not within stopTimeout.
func (e *endpoint) stop(ctx context.Context, httpServer *http.Server, grpcServer *grpc.Server, loop *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()

	e.mu.Lock()
	e.stopped = true
	for conn := range e.fresh {
		_ = conn.Close() // the HTTP server would wait for their requests
	}
	e.mu.Unlock()

	if err := httpServer.Shutdown(ctx); err != nil {
		e.log.LogAttrs(ctx, slog.LevelWarn, "cutting off HTTP requests", slog.Any("error", err))
		_ = httpServer.Close()
	}
	e.sockets.Wait()
	_ = loop.Close()
	cutOff := context.AfterFunc(ctx, grpcServer.Stop)
	grpcServer.GracefulStop()
	cutOff()
	e.streams.Wait()
	e.pace.stop()
}

// connState keeps fresh: connections that the HTTP server has and that it has read no request from.
func (e *endpoint) connState(conn net.Conn, state http.ConnState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if state != http.StateNew {
		delete(e.fresh, conn)
		return
	}
	e.fresh[conn] = struct{}{}
	if e.stopped {
		_ = conn.Close()
	}
}

func (e *endpoint) isStopping() bool {
	select {
	case <-e.stopping:
		return true
	default:
		return false
	}
}

// readBufferBytes is what an idle gRPC connection keeps for reading: enough for a watch request or a small
// put, and an eighth of gRPC's default. Larger messages bypass the buffer.
const readBufferBytes = 4 << 10

// grpcServer makes the gRPC server with all services.
func (e *endpoint) grpcServer() *grpc.Server {
	limits := e.cfg.Limits
	server := grpc.NewServer(
		grpc.Creds(newAcceptedCredentials()),
		grpc.ForceServerCodecV2(newWatchCodec(&e.metrics.wire)),
		grpc.MaxRecvMsgSize(limits.messageBytes()),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxHeaderListSize(uint32(limits.HeaderBytes)),
		grpc.MaxConcurrentStreams(limits.Streams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: limits.KeepaliveMinTime}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: limits.KeepaliveInterval, Timeout: limits.KeepaliveTimeout}),
		grpc.ConnectionTimeout(limits.HeaderTimeout),
		grpc.ReadBufferSize(readBufferBytes),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(e.metrics.unary),
		grpc.StreamInterceptor(e.metrics.stream),
	)
	pb.RegisterKVServer(server, &kvService{endpoint: e})
	pb.RegisterWatchServer(server, &watchService{endpoint: e})
	pb.RegisterLeaseServer(server, &leaseService{endpoint: e})
	pb.RegisterMaintenanceServer(server, &maintenanceService{endpoint: e})
	pb.RegisterClusterServer(server, &clusterService{endpoint: e})
	pb.RegisterAuthServer(server, &authService{endpoint: e})
	v3lockpb.RegisterLockServer(server, &lockService{endpoint: e})
	v3electionpb.RegisterElectionServer(server, &electionService{endpoint: e})
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	return server
}

// ignore returns err unless it is expected.
func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
