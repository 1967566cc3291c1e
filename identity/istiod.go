package identity

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Where Kubernetes and Istio's injection put what istiod's certificate authority needs.
const (
	DefaultTokenFile = "./var/run/secrets/tokens/istio-token" //nolint:gosec // a path
	DefaultRootFile  = "./var/run/secrets/istio/root-cert.pem"
)

const (
	defaultTTL   = 24 * time.Hour // as Istio's SECRET_TTL
	renewalRatio = 0.5            // as Istio's SECRET_GRACE_PERIOD_RATIO
	renewJitter  = 0.01           // as Istio's SECRET_GRACE_PERIOD_RATIO_JITTER
	// pollInterval is how often the wall clock and the root file are looked at while a certificate
	// is good: timers stand still while a machine sleeps, and clocks are set.
	pollInterval = time.Minute
)

// IstiodConfig configures Istiod.
type IstiodConfig struct {
	// Address is istiod's host:port with TLS, usually port 15012; required.
	Address string
	// ServerName is the name that istiod's certificate must have; default: the host of Address.
	ServerName string
	// TokenFile holds the service account's token, RootFile the certificates to verify istiod
	// with. Both are read for every request. Default: DefaultTokenFile and DefaultRootFile.
	TokenFile, RootFile string
	// TrustDomain (default "cluster.local"), Namespace and ServiceAccount make the SPIFFE ID.
	TrustDomain, Namespace, ServiceAccount string
	// ClusterID tells istiod whose token it is; default "Kubernetes".
	ClusterID string
	// CertSigner names the signer where istiod hands requests on to Kubernetes; default: none.
	CertSigner string
	// TTL is the life that is asked for; default 24 hours. istiod may shorten it.
	TTL time.Duration
	// RSA selects keys of RSA 2048; default: ECDSA P-256.
	RSA bool
	// Backoff is the time between requests that fail.
	Backoff Backoff
	// Logger receives renewals and failures, without keys and tokens; default: discard.
	Logger *slog.Logger
	// Registerer receives the metrics meshbridge_identity_*; default: none.
	Registerer prometheus.Registerer
}

// istiod asks istiod's certificate authority, as Istio's agent does (IstioCertificateService in
// istio.io/api). The identity is renewed at half of its life, and when the root file changes.
type istiod struct {
	*state
	config IstiodConfig
	id     *url.URL
	// request asks for a certificate; tests put their own here.
	request func(context.Context, []byte) ([]string, error)
}

// Istiod returns a Source that gets its certificate from istiod. The key is made here, afresh for
// each certificate, and never leaves memory.
func Istiod(config IstiodConfig) (Source, error) {
	host, _, err := net.SplitHostPort(config.Address)
	if err != nil {
		return nil, fmt.Errorf("identity: address of istiod: %w", err)
	}
	config.ServerName = cmp.Or(config.ServerName, host)
	config.TokenFile = cmp.Or(config.TokenFile, DefaultTokenFile)
	config.RootFile = cmp.Or(config.RootFile, DefaultRootFile)
	config.TrustDomain = cmp.Or(config.TrustDomain, "cluster.local")
	config.ClusterID = cmp.Or(config.ClusterID, "Kubernetes")
	config.TTL = cmp.Or(config.TTL, defaultTTL)
	config.Backoff = config.Backoff.withDefaults()
	if config.TTL < time.Second {
		return nil, fmt.Errorf("identity: a certificate for %s is too short", config.TTL)
	}
	id, err := workloadID(config.TrustDomain, config.Namespace, config.ServiceAccount)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	m, err := newMetrics(config.Registerer)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	s := &istiod{state: newState(config.Logger, m), config: config, id: id}
	s.request = s.createCertificate
	return s, nil
}

// Run implements Source.
func (s *istiod) Run(ctx context.Context) error {
	for failures := 0; ; {
		// Read first: a root that is replaced meanwhile leads to another renewal.
		root, err := os.ReadFile(s.config.RootFile)
		var next *Identity
		if err != nil {
			err = fileError{fmt.Errorf("root certificates: %w", err)}
		} else {
			next, err = s.issue(ctx, root)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the attempt failed because Run is to end
		}
		if err != nil {
			wait := s.config.Backoff.wait(failures)
			failures++
			s.failed(ctx, s.config.Address, err, wait)
			if !sleep(ctx, wait) {
				return nil
			}
			continue
		}
		failures = 0
		renewal := renewalTime(time.Now(), next.NotAfter)
		s.set(ctx, next, slog.Time("renewal", renewal))
		if !s.waitForRenewal(ctx, renewal, root) {
			return nil
		}
	}
}

// issue gets a new certificate for a new key.
func (s *istiod) issue(ctx context.Context, rootFile []byte) (*Identity, error) {
	key, csr, err := newRequest(s.id, s.config.RSA)
	if err != nil {
		return nil, err
	}
	answer, err := s.request(ctx, csr)
	if err != nil {
		return nil, err
	}
	next, err := s.accept(answer, key, rootFile)
	if err != nil {
		return nil, invalidError{fmt.Errorf("certificate from istiod: %w", err)}
	}
	return next, nil
}

// waitForRenewal returns when the wall clock has come to the time, or the root file differs from
// what it was; false when ctx ended.
func (s *istiod) waitForRenewal(ctx context.Context, at time.Time, root []byte) bool {
	at = at.Round(0)
	for {
		left := at.Sub(time.Now().Round(0))
		if left <= 0 {
			return true
		}
		if !sleep(ctx, min(left, pollInterval)) {
			return false
		}
		if now, err := os.ReadFile(s.config.RootFile); err == nil && string(now) != string(root) {
			s.logger.LogAttrs(ctx, slog.LevelInfo, "the root certificates changed, renewing the workload identity",
				slog.String("file", s.config.RootFile))
			return true
		}
	}
}

// renewalTime returns when half of the life that is left is over, a little earlier or later, so that
// workloads that started together do not renew together.
func renewalTime(now, notAfter time.Time) time.Time {
	//nolint:gosec // spreading load needs no secret randomness
	ratio := renewalRatio + renewJitter*(2*rand.Float64()-1)
	return notAfter.Add(-time.Duration(ratio * float64(notAfter.Sub(now.Round(0)))))
}

// sleep returns false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
