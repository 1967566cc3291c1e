package xds

import (
	"context"
	"errors"
	"log/slog"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
)

// Config configures New.
type Config struct {
	// Target is where istiod is: ParseTarget.
	Target Target
	// Credentials secure the connection; default: plaintext for grpc, and an error for grpcs.
	Credentials Credentials
	// Node identifies the proxy to istiod; required. NodeConfig.Node makes one.
	Node *corepb.Node
	// StateOfTheWorld selects the older protocol variant; the default is delta.
	StateOfTheWorld bool
	// Types are the type URLs to subscribe to; default: clusters, endpoints, listeners and routes.
	Types []string
	// Backoff is the time between attempts to connect.
	Backoff Backoff
	// MaxReceiveBytes limits one response; default 256 MiB. istiod sends all resources of a type in one.
	MaxReceiveBytes int
	// Logger receives connection changes, one line per push, and rejections; default: discard.
	Logger *slog.Logger
	// Registerer receives the metrics meshbridge_xds_*; default: none.
	Registerer prometheus.Registerer
}

// Backoff is exponential: the wait doubles from Base to Max with every attempt that fails.
type Backoff struct {
	Base time.Duration // default 250 ms
	Max  time.Duration // default 30 s
}

// Client is a Source that subscribes to istiod.
type Client struct{}

// New checks the configuration; it does not connect.
func New(Config) (*Client, error) { return nil, errors.New("not implemented") }

// Run implements Source.
func (c *Client) Run(context.Context, func(Update)) error { return errors.New("not implemented") }

// Status tells how the client is doing. It is safe for concurrent use.
func (c *Client) Status() Status { return Status{} }

// Status is the state of a Client's connection.
type Status struct {
	Connected bool
	// Since is when Connected last changed; zero before the first connection.
	Since time.Time
	// Target is what the client connects to.
	Target string
	// LastError is why the last stream or attempt ended; nil if none has.
	LastError error
	// Types is by type URL.
	Types map[string]TypeStatus
}

// TypeStatus is the state of one type's subscription.
type TypeStatus struct {
	LastResponse time.Time // zero before the first one
	Nonce        string    // of the last response on this stream
	Version      string    // of the last accepted response
	Resources    int       // known now
	Rejected     int       // refused now
}

// Target says where to get resources from.
type Target struct {
	Scheme  string // grpc (plaintext), grpcs (TLS) or file
	Address string // host:port
	Path    string // of scheme file
}

// Credentials are how the client authenticates istiod and itself.
type Credentials struct {
	// RootFile holds the certificates to verify istiod with, as PEM; read at every connection.
	RootFile string
	// TokenFile holds the bearer token; read at every RPC. Default: no token.
	TokenFile string
	// ServerName is the name that istiod's certificate must have; default: the target's host.
	ServerName string
}
