package bridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"meshbridge/capture"
	capturedns "meshbridge/capture/dns"
	"meshbridge/cmd/internal/accesslog"
	"meshbridge/cmd/internal/admin"
	"meshbridge/cmd/internal/allocate"
	"meshbridge/cmd/internal/apisixprocess"
	"meshbridge/cmd/internal/dns"
	"meshbridge/cmd/internal/lastgood"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/cmd/internal/reap"
	"meshbridge/cmd/internal/status"
	"meshbridge/cmd/internal/telemetry"
	"meshbridge/cmd/internal/tracing"
	"meshbridge/gateway"
	"meshbridge/gateway/auth"
	"meshbridge/identity"
	"meshbridge/store"
	"meshbridge/translate"
	"meshbridge/xds"
)

// Off is the address of a server that is not started.
const Off = "off"

// Config configures New.
type Config struct {
	// NewSource makes the source of resources; the registerer is for its metrics.
	NewSource func(prometheus.Registerer) (xds.Source, error)
	Translate translate.Options
	// DNS says how the names of STRICT_DNS clusters are resolved; nil leaves that to APISIX.
	// Registerer and Logger are set by New.
	DNS *dns.Config
	// Capture is served in front of APISIX in profile mesh; nil is not.
	Capture *CaptureConfig
	// Extensions are what users add to the translation; nil is nothing.
	Extensions *ExtensionsConfig
	// APISIX is started by the bridge once there is something to serve, and ends with it; nil is not.
	APISIX *APISIXConfig
	// Lifecycle says how the bridge ends.
	Lifecycle LifecycleConfig
	// Pod is what else is served to the pod on Metrics, as Istio's agent does. Ready, Drain, Quit, Gatherer,
	// Registerer and Logger are set by New.
	Pod status.Config
	// Node is who istiod is told that we are, and Istiod where it is; for the admin port. With
	// resources from files there may be neither.
	Node   *corepb.Node
	Istiod string
	// TokenFile has the token that istiod is shown, which is looked at for when it expires; empty where it is
	// shown none.
	TokenFile string
	// Prefix is APISIX's etcd prefix, for example "/apisix".
	Prefix string
	// StateDir keeps what must survive a restart; empty keeps nothing.
	StateDir string
	// LastGood keeps the last good state in a file; nil keeps none. Registerer, Logger, Connected and
	// ServeIncomplete are set by New.
	LastGood *lastgood.Config
	// Handover is the path of a Unix socket at which a successor on the same host takes over; empty is none.
	Handover string
	// Listen, Admin, Status, Metrics and Internal are addresses, or Off. Port 0 picks one and logs it.
	Listen, Admin, Status, Metrics string
	// Internal is where APISIX asks the bridge, and tells it of requests: for the loopback interface alone.
	Internal string
	// RequestMetrics says which requests and connections are counted in Istio's metrics; requests need Internal.
	RequestMetrics RequestMetrics
	// AccessLogs says how the bridge writes access logs; nil writes none. World, Dialer, Node, Registerer and Logger
	// are set by New.
	AccessLogs *accesslog.Config
	// Tracing says where traces of changes go; nil has none.
	Tracing *tracing.Config
	// TLS, when set, is what the etcd port speaks; with ClientCAs it authenticates its clients.
	TLS *tls.Config
	// Auth keeps the users of the etcd port; nil is gateway.Config's default.
	Auth *auth.Authority
	// InsecureListen allows Listen to be reachable from elsewhere without TLS and authentication.
	InsecureListen bool
	// KeepRevisions and KeepFor bound the history that watchers can resume from.
	KeepRevisions int64
	KeepFor       time.Duration
	// HoldTimeout bounds how long a request waits for the first world.
	HoldTimeout time.Duration
	// Limits, CORSOrigins and HostWhitelist are gateway.Config's, for the etcd port.
	Limits                     gateway.Limits
	CORSOrigins, HostWhitelist []string
	Version                    string
	// Logger is split into logscope's scopes, where it has them.
	Logger *slog.Logger
}

// Bridge is the running bridge.
type Bridge struct {
	config   Config
	started  time.Time
	registry *prometheus.Registry
	metrics  *metrics
	source   xds.Source
	store    *store.Store
	pipeline *pipeline
	resolver *dns.Resolver // nil where names are left to APISIX
	gateway  *gateway.Server
	internal *http.ServeMux      // what APISIX asks; nil without the internal port
	tracer   *tracing.Tracer     // nil where changes are not traced
	requests *telemetry.Requests // nil where they are not counted
	// connections are told of by capture; nil where they are neither counted nor logged.
	connections *telemetry.Connections
	// accessLogs writes access logs; nil where that is off.
	accessLogs *accesslog.Writer

	servers  []server // what Run serves besides the etcd port
	listener net.Listener

	// With capture; nil without.
	capture    *capture.Server
	identity   identity.Source
	numbers    *allocate.Allocator
	nameServer *capturedns.Server

	apisix *apisixprocess.Process // nil where it is not started by the bridge
	reaper *reap.Reaper           // nil where nothing is inherited

	succession succession

	lifecycle *lifecycle
	status    *status.Server
	admin     *admin.Server
	// received is what the source delivered last, without the decoded forms.
	received atomic.Pointer[xds.Update]
}

// New makes the parts and opens every port, so that a port in use is reported before anything runs.
func New(ctx context.Context, c Config) (_ *Bridge, err error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	b := &Bridge{
		config: c, started: time.Now(), registry: prometheus.NewRegistry(),
		lifecycle: newLifecycle(c.Lifecycle, c.Logger),
	}
	b.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(c.Version))
	if c.RequestMetrics != RequestMetricsOff {
		b.registry.MustRegister(telemetry.Build(c.Node))
	}
	if c.TokenFile != "" {
		b.registry.MustRegister(tokenExpiry(c.TokenFile))
	}

	defer func() {
		if err != nil {
			b.closeListeners()
			b.closeSuccession()
		}
	}()
	if err := b.claim(ctx); err != nil {
		return nil, err
	}
	if err := b.openInternal(ctx); err != nil {
		return nil, err
	}
	base, revisions, err := b.openRevisions()
	if err != nil {
		return nil, err
	}
	b.store, err = store.New(store.Config{
		BaseRevision: base, RefuseFuture: true, KeepRevisions: c.KeepRevisions, KeepFor: c.KeepFor,
	})
	if err != nil {
		return nil, err
	}
	b.config.Translate.NoAccessLogs = c.AccessLogs == nil
	b.config.Translate.NoAccessLogs = c.AccessLogs == nil
	state, err := translate.New(b.config.Translate)
	if err != nil {
		return nil, err
	}
	b.metrics = newMetrics(b.registry)
	b.pipeline = newPipeline(state, newWriter(b.store, c.Prefix, base, revisions.reserve, b.metrics, c.Logger), c.Logger, b.metrics)
	b.verifyTokens()
	if b.pipeline.extensions, err = openExtensions(c.Extensions, c.Logger); err != nil {
		return nil, err
	}
	if c.DNS != nil {
		config := *c.DNS
		config.Registerer, config.Logger = b.registry, logscope.Logger(c.Logger, logscope.DNS)
		b.resolver = dns.New(config)
		b.pipeline.names.resolver = b.resolver
	}
	if b.source, err = c.NewSource(b.registry); err != nil {
		return nil, err
	}
	b.openLastGood()
	b.openSuccession()
	b.admin = b.newAdmin()
	if err := b.newStatus(); err != nil {
		return nil, err
	}
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(b.openAccessLogs(), b.openCapture(ctx), b.openTraces(ctx), b.openAPISIX()); err != nil {
		return nil, err
	}
	b.openRequests()
	return b, b.awaitSuccessor()
}

func (c *Config) validate() error {
	if !strings.HasPrefix(c.Prefix, "/") || strings.HasSuffix(c.Prefix, "/") {
		return fmt.Errorf("prefix %q: must start with a slash and not end in one, like /apisix", c.Prefix)
	}
	if c.Listen == Off {
		return errors.New("listen: the etcd port is what the bridge is for and cannot be off")
	}
	authenticates := c.TLS != nil && c.TLS.ClientCAs != nil || c.Auth != nil && c.Auth.Enabled()
	if c.InsecureListen || c.TLS != nil && authenticates {
		return nil
	}
	if loopback, err := isLoopback("listen", c.Listen); err != nil || !loopback {
		return errors.Join(err, fmt.Errorf(
			"listen %s: reachable from outside this host without TLS, or without client certificates or passwords, and what is served may hold private keys: "+
				"give --listen-cert and --listen-key, and --listen-client-ca or --root-password-file, or say --insecure-listen", c.Listen))
	}
	return nil
}

// isLoopback tells whether only this host can reach the address.
func isLoopback(flag, address string) (bool, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false, fmt.Errorf("--%s %s: %w", flag, address, err)
	}
	if host == "localhost" {
		return true, nil
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback(), nil
}

// open listens on every address and makes the servers.
func (b *Bridge) open(ctx context.Context) (err error) {
	c := b.config
	if b.listener, err = b.listen(ctx, "etcd", "listen", c.Listen); err != nil {
		return err
	}
	c.Logger.InfoContext(ctx, "serving etcd", addressOf(b.listener))
	scheme := "http"
	if c.TLS != nil {
		scheme = "https"
	}
	owner := newOwnership(c.Prefix, b.pipeline.extensions)
	b.gateway, err = gateway.New(gateway.Config{
		Store:       b.store,
		TLS:         c.TLS,
		Auth:        c.Auth,
		Name:        "meshbridge",
		ClientURLs:  []string{scheme + "://" + b.listener.Addr().String()},
		Hold:        b.hold,
		HoldTimeout: c.HoldTimeout,
		Admit:       owner.admit,
		QuotaBytes:  -1, // what istiod sends has to fit
		Limits:      c.Limits,
		CORSOrigins: c.CORSOrigins, HostWhitelist: c.HostWhitelist,
		Logger:     logscope.Logger(c.Logger, logscope.Etcd),
		Registerer: b.registry,
		Gatherer:   b.registry,
	})
	if err != nil {
		return err
	}
	b.registry.MustRegister(newStoreCollector(b.store, b.gateway))
	for _, s := range []struct {
		name, address string
		server        func() server
		announce      func(slog.Attr)
	}{
		{"admin", c.Admin, b.adminServer, func(a slog.Attr) { c.Logger.InfoContext(ctx, "serving admin", a) }},
		{"status", c.Status, b.statusServer, func(a slog.Attr) { c.Logger.InfoContext(ctx, "serving status", a) }},
		{"metrics", c.Metrics, b.metricsServer, func(a slog.Attr) { c.Logger.InfoContext(ctx, "serving metrics", a) }},
	} {
		if s.address == Off {
			continue
		}
		srv := s.server()
		if srv.listener, err = b.listen(ctx, s.name, s.name, s.address); err != nil {
			return err
		}
		b.servers = append(b.servers, srv)
		s.announce(addressOf(srv.listener))
	}
	return nil
}

// addressOf is what is logged of a port, so that one that was picked can be found.
func addressOf(l net.Listener) slog.Attr { return slog.String("address", l.Addr().String()) }

func (b *Bridge) listen(ctx context.Context, name, flag, address string) (net.Listener, error) {
	l, err := b.succession.ports.Listen(ctx, net.ListenConfig{}, name, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s port: --%s %s: %w", name, flag, address, err)
	}
	return l, nil
}

func (b *Bridge) closeListeners() {
	if b.listener != nil {
		_ = b.listener.Close()
	}
	for _, s := range b.servers {
		_ = s.listener.Close()
	}
}

// hold is a gateway.Config.Hold: nothing below the prefix is shown before the first world, because
// APISIX would take an empty world for the truth and delete everything it has.
func (b *Bridge) hold(key, end []byte) <-chan struct{} {
	if !underPrefix(b.config.Prefix, key, end) {
		return nil
	}
	select {
	case <-b.pipeline.ready:
		return nil
	default:
		return b.pipeline.ready
	}
}

// Ready is closed when the first complete world is committed.
func (b *Bridge) Ready() <-chan struct{} { return b.pipeline.ready }

// Run serves until ctx ends, it is asked to end or a part fails, and returns after everything has stopped:
// see lifecycle.
func (b *Bridge) Run(ctx context.Context) error {
	defer b.store.Close()
	defer b.status.Close()
	group, inner := errgroup.WithContext(context.WithoutCancel(ctx))
	inner, stop := context.WithCancel(inner)
	defer stop()
	accepting, leave := context.WithCancelCause(inner)
	defer leave(nil)
	group.Go(func() error {
		defer stop()
		b.lifecycle.run(ctx, inner, b.traffic())
		return nil
	})
	finishAccessLogs := b.startAccessLogs(ctx)
	b.serve(inner, accepting, group)
	b.runSuccession(inner, group, func() { leave(gateway.ErrHandedOver) })
	err := group.Wait()
	b.closeNumbers()
	return errors.Join(err, finishAccessLogs())
}

// serve starts all parts. accepting ends before ctx where a successor accepts the connections from then on.
func (b *Bridge) serve(ctx, accepting context.Context, group *errgroup.Group) {
	group.Go(func() error { return b.store.Run(ctx) })
	group.Go(func() error {
		return b.whenServing(accepting, b.listener, func() error { return b.gateway.Serve(accepting, b.listener) })
	})
	if l := b.pipeline.lastGood; l != nil {
		group.Go(func() error { return l.state.Run(ctx) })
	}
	group.Go(func() error { return b.follow(ctx) })
	group.Go(func() error { return b.pipeline.Run(ctx) })
	if b.resolver != nil {
		group.Go(func() error { return b.resolver.Run(ctx) })
	}
	group.Go(func() error { return b.releaseMemory(ctx) })
	group.Go(func() error { return b.announceReady(ctx) })
	group.Go(func() error { return b.runRequests(ctx) })
	group.Go(func() error { return b.runConnections(ctx) })
	group.Go(func() error { return b.tracer.Run(ctx, b.gateway) })
	for _, s := range b.servers {
		group.Go(func() error {
			return b.whenServing(accepting, s.listener, func() error { return s.run(accepting) })
		})
	}
	if b.capture != nil {
		group.Go(func() error { return b.whenServing(ctx, nil, func() error { return b.capture.Run(ctx) }) })
		group.Go(func() error { return b.pipeline.feed.Run(ctx) })
	}
	if b.nameServer != nil {
		group.Go(func() error {
			return b.whenServing(accepting, nil, func() error { return b.nameServer.Run(accepting) })
		})
	}
	if b.identity != nil {
		group.Go(func() error { return b.identity.Run(ctx) })
	}
	b.runAPISIX(ctx, group)
}
