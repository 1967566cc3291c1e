package accesslog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"meshbridge/capture"
	"meshbridge/translate"
	"meshbridge/xds"
)

// World is what the bridge knows. Its methods are safe for concurrent use.
type World interface {
	// Snapshot has the resources that istiod sent, or nil before there are any.
	Snapshot() *xds.Snapshot
}

// Dialer connects to an endpoint of a cluster, as the cluster says, with HTTP/2 for a host. [capture.Dialer] is one.
type Dialer interface {
	Dial(ctx context.Context, to *translate.OverlayEndpoint, host string) (net.Conn, error)
}

const (
	// maxConnectDelay bounds gRPC's wait between two attempts to connect.
	maxConnectDelay = 15 * time.Second
	// preferAgain is how long endpoints of a lower priority are used before the first are tried again.
	preferAgain = time.Minute
)

// target knows where a service is: it resolves the cluster for gRPC, and connects. Its methods are safe for
// concurrent use.
type target struct {
	cluster, host string
	world         World
	dialer        Dialer

	mu    sync.Mutex
	cc    resolver.ClientConn // nil until gRPC asks
	reach *translate.Reach
	// level is that of the last endpoints that are used, and lowered is when it was not the first any more.
	level   int
	lowered time.Time
	known   map[string]*translate.OverlayEndpoint // by address
	// moved is closed when the endpoints are others than before.
	moved chan struct{}
	// failure is why the last connection did not come about.
	failure error
}

func newTarget(to *destination, world World, dialer Dialer) *target {
	host := to.authority
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return &target{cluster: to.cluster, host: host, world: world, dialer: dialer, moved: make(chan struct{})}
}

// connect makes the connection of gRPC, which is opened when it is used.
func (t *target) connect(authority string) (*grpc.ClientConn, error) {
	if authority == "" {
		authority = t.cluster // as Envoy
	}
	connecting := backoff.DefaultConfig
	connecting.MaxDelay = maxConnectDelay
	return grpc.NewClient(t.Scheme()+":///service",
		grpc.WithResolvers(t), grpc.WithContextDialer(t.dial), grpc.WithNoProxy(),
		// TLS is a matter of each endpoint: dial does it.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority(authority), grpc.WithUserAgent("meshbridge"),
		grpc.WithDisableServiceConfig(), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: connecting, MinConnectTimeout: 5 * time.Second}),
		// Servers refuse more often than every 5 minutes by default. Until then, the timeout bounds how long the
		// kernel sends without an answer.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 6 * time.Minute, Timeout: 20 * time.Second}),
	)
}

// Scheme is that of the names that are resolved here.
func (*target) Scheme() string { return "cluster" }

// Build is called by gRPC when the connection is used for the first time, or again after a while.
func (t *target) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cc = cc
	t.resolve()
	return t, nil
}

// ResolveNow does nothing: what is known is known.
func (*target) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends what Build began.
func (t *target) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cc = nil
}

// follow takes note of what has changed in the world.
func (t *target) follow(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	again := t.level > 0 && now.Sub(t.lowered) >= preferAgain
	if again {
		t.level = 0
	}
	if t.cc == nil || !again && t.reach != nil && t.reach.Current(t.world.Snapshot()) {
		return
	}
	t.resolve()
}

// lower uses endpoints of the next priority, too, where none of those before can be connected to.
func (t *target) lower(now time.Time, state connectivity.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if state != connectivity.TransientFailure || t.cc == nil || t.reach == nil || t.level+1 >= len(t.reach.Levels) {
		return
	}
	t.level++
	t.lowered = now
	t.resolve()
}

// resolve tells gRPC of the endpoints. It is called with mu.
func (t *target) resolve() {
	if snapshot := t.world.Snapshot(); t.reach == nil || !t.reach.Current(snapshot) {
		t.reach, t.level = translate.ReachOf(snapshot, t.cluster), 0
	}
	known := map[string]*translate.OverlayEndpoint{}
	var addresses []resolver.Address
	for _, level := range t.reach.Levels[:min(t.level+1, len(t.reach.Levels))] {
		for _, e := range level {
			address := addressOf(e)
			if known[address] == nil {
				addresses = append(addresses, resolver.Address{Addr: address, Attributes: attributes.New(transportKey{}, transportOf(e))})
			}
			known[address] = e
		}
	}
	same := len(known) == len(t.known)
	for address := range known {
		same = same && t.known[address] != nil && transportOf(t.known[address]) == transportOf(known[address])
	}
	t.known = known
	if !same {
		close(t.moved)
		t.moved = make(chan struct{})
	}
	if err := t.unreachable(); err != nil {
		t.cc.ReportError(err)
		return
	}
	slices.SortFunc(addresses, func(a, b resolver.Address) int { return strings.Compare(a.Addr, b.Addr) })
	// What it returns is about addresses that cannot be used by any balancer: there are some.
	_ = t.cc.UpdateState(resolver.State{Addresses: addresses})
}

// Why a service is not there.
var (
	errUnknownCluster = errors.New("there is no such cluster")
	errNoEndpoints    = errors.New("the cluster has no endpoints")
)

// unreachable is why there is nothing to connect to, nil where there is. It is called with mu.
func (t *target) unreachable() error {
	switch {
	case t.reach == nil || len(t.known) > 0:
		return nil
	case !t.reach.Known:
		return errUnknownCluster
	default:
		return errNoEndpoints
	}
}

// dial connects to an address of resolve's.
func (t *target) dial(ctx context.Context, address string) (net.Conn, error) {
	t.mu.Lock()
	e := t.known[address]
	t.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("%s is no endpoint of the cluster any more", address)
	}
	conn, err := t.dialer.Dial(ctx, e, t.host)
	if ctx.Err() == nil {
		t.mu.Lock()
		t.failure = err
		t.mu.Unlock()
	}
	return conn, err
}

// reason says in a word why sending has failed, for the metric, and the error itself, if more is known of it than
// gRPC tells.
func (t *target) reason(failed error) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.unreachable()
	switch {
	case errors.Is(err, errUnknownCluster):
		return "unknown_cluster", err
	case err != nil:
		return "no_endpoints", err
	case errors.Is(t.failure, capture.ErrMissingCredential):
		return "no_certificate", fmt.Errorf("nothing is sent in plain text to an endpoint that wants TLS: %w", t.failure)
	}
	switch status.Code(failed) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown: // gRPC's own, and those of no status
		return "connect", failed
	default:
		return "refused", failed
	}
}

// changed is closed when the endpoints are others than now.
func (t *target) changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.moved
}

// transportKey is the attribute of an address that tells apart connections to it that are not alike.
type transportKey struct{}

// transportOf tells apart how endpoints are connected to.
func transportOf(e *translate.OverlayEndpoint) string {
	if e.TLS == nil {
		return fmt.Sprint("plain ", e.ProxyProtocol)
	}
	return fmt.Sprint("TLS ", e.ProxyProtocol, " ", e.TLS.ServerName, " ", e.TLS.Credential, " ", e.TLS.Authorities)
}

func addressOf(e *translate.OverlayEndpoint) string {
	switch {
	case e.Path != "":
		return e.Path
	case e.Name != "":
		return e.Name
	}
	return e.Target.String()
}
