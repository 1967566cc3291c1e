package identity

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// DefaultSocket is where Istio's agent, and SPIRE's in its place, serve secrets.
const DefaultSocket = "./var/run/secrets/workload-spiffe-uds/socket"

// The names by which Envoy asks for the workload's certificate and the authorities of its peers.
const (
	certificateSecret = "default"
	authoritiesSecret = "ROOTCA"
)

// healthyAfter is how long a connection must have lasted for the next attempt to count as the first.
const healthyAfter = 10 * time.Second

// SDSConfig configures SDS.
type SDSConfig struct {
	// Socket is the path of a Unix socket; default DefaultSocket.
	Socket string
	// NodeID identifies the proxy; Istio's agent wants one, whatever it is. Default "meshbridge".
	NodeID string
	// Backoff is the time between connections.
	Backoff Backoff
	// Logger receives rotations and failures, without keys; default: discard.
	Logger *slog.Logger
	// Registerer receives the metrics meshbridge_identity_*; default: none.
	Registerer prometheus.Registerer
}

// sds gets secrets as Envoy does: a state-of-the-world stream for each of the two
// (envoy.service.secret.v3.SecretDiscoveryService). The agent renews them.
type sds struct {
	*state
	config SDSConfig
	node   *corepb.Node

	// Owned by Run; they outlive a connection.
	certificate, authorities secret
}

// SDS returns a Source that gets certificate, key and authorities from a local agent.
func SDS(config SDSConfig) (Source, error) {
	config.Socket = cmp.Or(config.Socket, DefaultSocket)
	config.Backoff = config.Backoff.withDefaults()
	m, err := newMetrics(config.Registerer)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return &sds{
		state:  newState(config.Logger, m),
		config: config,
		node:   &corepb.Node{Id: cmp.Or(config.NodeID, "meshbridge")},
	}, nil
}

// Run implements Source.
func (s *sds) Run(ctx context.Context) error {
	for failures := 0; ; {
		started := time.Now()
		err := s.connect(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the attempt failed because Run is to end
		}
		if time.Since(started) >= healthyAfter {
			failures = 0
		}
		wait := s.config.Backoff.wait(failures)
		failures++
		s.failed(ctx, s.config.Socket, err, wait)
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// connect serves one connection to its end and returns why it ended.
func (s *sds) connect(ctx context.Context) error {
	conn, err := grpc.NewClient("unix:"+s.config.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig())
	if err != nil {
		return err
	}
	defer conn.Close()

	running, ctx := errgroup.WithContext(ctx)
	received := make(chan secret) // unbuffered: a stream waits until the last secret is dealt with
	for _, name := range []string{certificateSecret, authoritiesSecret} {
		running.Go(func() error {
			err := subscribe(ctx, conn, s.node, name, received)
			return fmt.Errorf("secret %q: %w", name, err)
		})
	}
	running.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case got := <-received:
				s.take(ctx, got)
			}
		}
	})
	return running.Wait()
}

// take makes an identity of the new secret and the other one. Each of the two is good in itself by
// now; the two do not change together, and an agent that replaces its root sends one of them first.
func (s *sds) take(ctx context.Context, got secret) {
	switch {
	case got.err != nil:
		s.failed(ctx, s.config.Socket, invalidError{fmt.Errorf("secret %q: %w", got.name, got.err)}, 0)
		return
	case got.name == certificateSecret:
		s.certificate = got
	default:
		s.authorities = got
	}
	if s.certificate.name == "" || s.authorities.name == "" {
		return
	}
	next, err := assemble(s.certificate.chain, s.certificate.key, s.authorities.chain, time.Now())
	if err != nil {
		s.failed(ctx, s.config.Socket, invalidError{err}, 0)
		return
	}
	if current := s.Current(); current != nil && current.same(next) {
		return // sent again, as after a reconnect
	}
	s.set(ctx, next)
}
