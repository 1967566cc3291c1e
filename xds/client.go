package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	defaultMaxReceiveBytes = 256 << 20
	connectTimeout         = 10 * time.Second
	// istiod closes connections that ping more often than every 15 s; its own agent uses these.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
)

// Config configures New.
type Config struct {
	// Address is istiod's host:port.
	Address string
	// TransportCredentials secure the connection (NewTLSCredentials); default: plaintext.
	TransportCredentials credentials.TransportCredentials
	// PerRPCCredentials authenticate the client (NewTokenCredentials); default: none.
	PerRPCCredentials credentials.PerRPCCredentials
	// Node identifies the proxy to istiod; required. NodeConfig.Node makes one.
	Node *corepb.Node
	// StateOfTheWorld selects the older protocol variant; the default is delta.
	StateOfTheWorld bool
	// Types are the type URLs to subscribe to, in the order of the first requests; default:
	// clusters and listeners as a whole, and the endpoints, routes and secrets that these name.
	Types []string
	// NameTable subscribes to the name table, too (NameTableType): what a DNS server in front of the
	// application answers. istiod sends one to any proxy that asks.
	NameTable bool
	// Backoff is the time between streams.
	Backoff Backoff
	// MaxReceiveBytes limits one response; default 256 MiB. istiod sends all resources of a type
	// in one, for 10,000 services some 12 MB.
	MaxReceiveBytes int
	// Logger receives connection changes, one line per push, and rejections; default: discard.
	Logger *slog.Logger
	// Registerer receives the metrics meshbridge_xds_*; default: none.
	Registerer prometheus.Registerer
}

// Client is a Source that subscribes to istiod over ADS. It keeps what it has through the loss of
// the connection and of istiod, and connects again for as long as Run runs.
type Client struct {
	// Set once.
	config  Config
	logger  *slog.Logger
	metrics *metrics
	connect func(context.Context) (variant, io.Closer, error)

	board statusBoard // has its own lock

	// Owned by Run.
	cache    *cache
	versions map[string]string // last accepted, by type
	outage   outage
}

// New checks the configuration; it does not connect. A Client runs once at a time.
func New(config Config) (*Client, error) {
	if _, _, err := net.SplitHostPort(config.Address); err != nil {
		return nil, fmt.Errorf("xds: address of istiod: %w", err)
	}
	if config.Node.GetId() == "" {
		return nil, errors.New("xds: the node has no id")
	}
	if len(config.Types) == 0 {
		// The order in which Envoy asks and istiod pushes.
		config.Types = []string{ClusterType, EndpointType, ListenerType, RouteType, SecretType}
	}
	if config.NameTable && !slices.Contains(config.Types, NameTableType) {
		config.Types = append(slices.Clone(config.Types), NameTableType)
	}
	for i, t := range config.Types {
		if !isTypeURL(t) {
			return nil, fmt.Errorf("xds: %q is not a type URL", t)
		}
		if slices.Contains(config.Types[:i], t) {
			return nil, fmt.Errorf("xds: type %q is listed twice", t)
		}
	}
	if config.TransportCredentials == nil {
		config.TransportCredentials = insecure.NewCredentials()
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	config.MaxReceiveBytes = cmp.Or(config.MaxReceiveBytes, defaultMaxReceiveBytes)
	config.Backoff = config.Backoff.withDefaults()
	config.Node = proto.CloneOf(config.Node)
	m, err := newMetrics(config.Registerer)
	if err != nil {
		return nil, fmt.Errorf("xds: %w", err)
	}
	c := &Client{
		config:   config,
		logger:   config.Logger,
		metrics:  m,
		board:    statusBoard{status: Status{Target: config.Address, Types: map[string]TypeStatus{}}},
		cache:    newCache(config.Types),
		versions: map[string]string{},
	}
	c.connect = c.dial
	return c, nil
}

// Status tells how the client is doing. It is safe for concurrent use.
func (c *Client) Status() Status { return c.board.read() }

// Run implements Source. It returns nil when ctx ends and never otherwise.
func (c *Client) Run(ctx context.Context, deliver func(Update)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		started := time.Now()
		answered, err := c.stream(ctx, deliver)
		if ctx.Err() != nil {
			c.lost(context.Cause(ctx))
			return nil
		}
		c.lost(err)
		c.metrics.reconnects.Inc()
		why := cause(err)
		c.metrics.terminations.WithLabelValues(why.reason).Inc()
		if answered && time.Since(started) >= healthyAfter*c.config.Backoff.Base {
			failures = 0
		}
		wait := c.config.Backoff.wait(failures)
		failures++
		c.logger.LogAttrs(ctx, c.outage.failed(time.Now(), why.text), "no configuration from istiod, keeping the last",
			slog.String("target", c.config.Address), slog.String("cause", why.text),
			slog.Any("error", err), slog.Duration("retry_in", wait))
		timer.Reset(wait)
	}
}

func (c *Client) lost(err error) {
	c.board.disconnected(err)
	c.metrics.connected.Set(0)
}

// stream runs one stream to its end. It returns the error that ended it, io.EOF where the server
// closed it in order, and whether the server answered at all.
func (c *Client) stream(ctx context.Context, deliver func(Update)) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, conn, err := c.connect(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()

	out := newSender()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		out.run(ctx, stream)
	}()
	defer func() {
		cancel()
		<-ended
	}()

	subs := newSubscriptions(c.cache, c.versions, c.config.Node, c.config.StateOfTheWorld)
	out.enqueue(subs.opening(c.config.Types)...)
	for {
		r, err := stream.recv()
		if err != nil {
			return answered, err
		}
		at := time.Now()
		if !subs.receive(&r) {
			c.logger.LogAttrs(ctx, slog.LevelWarn, "response of a type that was not asked for, ignored",
				slog.String("type_url", r.typeURL), slog.String("nonce", r.nonce))
			continue
		}
		answered = true
		o := c.cache.apply(r, at)
		answer := subs.answer(r, o.errors)
		c.report(ctx, r, o) // before the answer, so that who sees an ACK finds its version in the status
		out.enqueue(answer)
		for _, change := range o.subscriptions {
			out.enqueue(subs.change(change))
		}
		if o.news {
			deliver(o.update)
		}
	}
}

// report tells log, metrics and status about a response.
func (c *Client) report(ctx context.Context, r response, o outcome) {
	at := o.update.Received
	short := ShortType(r.typeURL)
	c.metrics.pushes.WithLabelValues(short).Inc()
	c.metrics.lastPush.Set(float64(at.UnixMilli()) / 1000)
	c.metrics.connected.Set(1)
	if len(o.update.Changed) > 0 {
		c.metrics.lastUpdate.WithLabelValues(short).Set(float64(at.UnixMilli()) / 1000)
	}
	for url := range c.cache.types {
		c.metrics.resources.WithLabelValues(ShortType(url)).Set(float64(c.cache.snapshot.Len(url)))
	}
	if c.board.answered(r, o, c.versions[r.typeURL], c.cache) {
		c.logger.LogAttrs(ctx, slog.LevelInfo, "connected to istiod",
			append([]slog.Attr{slog.String("target", c.config.Address)}, c.outage.over(at)...)...)
	}
	for _, err := range o.errors {
		c.logger.LogAttrs(ctx, slog.LevelWarn, "resource rejected, keeping its last good version",
			slog.String("type_url", r.typeURL), slog.String("nonce", r.nonce), slog.Any("error", err))
	}
	if len(o.errors) > 0 {
		c.metrics.rejects.WithLabelValues(short).Inc()
	}
	c.logger.LogAttrs(ctx, slog.LevelInfo, "push received",
		slog.String("type_url", r.typeURL), slog.String("version", r.version),
		slog.Int("resources", len(r.resources)), slog.Int("removed", len(r.removed)),
		slog.Int("changed", len(o.update.Changed)), slog.Int("rejected", len(o.errors)),
		slog.Duration("duration", time.Since(at)))
}

// dial opens a connection and a stream on it. Every attempt has a connection of its own, because
// gRPC's would wait by its own clock between attempts and hide the causes of failures.
func (c *Client) dial(ctx context.Context) (variant, io.Closer, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(c.config.TransportCredentials),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(c.config.MaxReceiveBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		// The control plane is a neighbour: HTTPS_PROXY and TXT records are not about it.
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
	}
	if c.config.PerRPCCredentials != nil {
		options = append(options, grpc.WithPerRPCCredentials(c.config.PerRPCCredentials))
	}
	conn, err := grpc.NewClient("dns:///"+c.config.Address, options...)
	if err != nil {
		return nil, nil, err
	}
	open := openDelta
	if c.config.StateOfTheWorld {
		open = openWorld
	}
	stream, err := open(ctx, conn)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return stream, conn, nil
}

// termination is why a stream ended.
type termination struct {
	reason string // as metrics have it
	text   string // what an operator should look at
}

func cause(err error) termination {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return termination{"refused", "istiod refuses this identity"}
	case codes.Unavailable:
		return termination{"unreachable", "istiod cannot be reached or is not ready"}
	case codes.ResourceExhausted:
		return termination{"oversize", "a message is larger than allowed"}
	default:
		if errors.Is(err, io.EOF) {
			return termination{"closed", "istiod ended the stream"}
		}
		return termination{"failed", "the stream failed"}
	}
}
