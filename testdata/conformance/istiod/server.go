package istiod

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pkg/config/mesh"
)

// Mode selects how much of istiod runs.
type Mode string

// The modes; the package documentation compares them.
const (
	ModeDiscovery Mode = "discovery"
	ModeBootstrap Mode = "bootstrap"
)

// Config says what to serve and where. Addresses with port 0 pick a free port.
type Config struct {
	Mode      Mode
	Manifests Manifests
	// GRPC is the plaintext xDS address.
	GRPC string
	// HTTP serves /ready and /debug/.
	HTTP string
	// Secure is the TLS address for xDS and certificates (ModeBootstrap only).
	Secure string
	// Tokens are the bearer tokens accepted on Secure, and the service
	// account, as namespace/name, that each stands for.
	Tokens map[string]string
	// TokenFile names a file with more tokens, in the form of ParseTokens. It is read for each token
	// that is shown, so that tokens come and expire.
	TokenFile string
	// Debounce is istiod's quiet time before a push; istiod's default is
	// 100 ms. Only ModeDiscovery honours it, the other reads
	// PILOT_DEBOUNCE_AFTER.
	Debounce time.Duration
	Logger   *slog.Logger
}

// epoch is when the oldest of the first manifests seems to have been created.
// It is fixed so that the same manifests give the same configuration.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Server is a running istiod.
type Server struct {
	// GRPC, HTTP and Secure are the addresses in use; empty means not served.
	GRPC, HTTP, Secure string
	// RootCert is the PEM root that signed the certificate of Secure.
	RootCert []byte

	manifests Manifests
	log       *slog.Logger
	store     objectStore
	have      map[Key]Document // owned by Follow
	stop      func()
}

// Start loads the manifests and returns once istiod serves them.
func Start(c Config) (*Server, error) {
	docs, err := c.Manifests.Load()
	if err != nil {
		return nil, err
	}
	meshConfig, err := loadMesh(c.Manifests.MeshFile)
	if err != nil {
		return nil, err
	}
	// For /debug/force_disconnect: tests need a stream that istiod ends.
	features.EnableUnsafeAdminEndpoints = true

	s := &Server{manifests: c.Manifests, log: c.Logger, have: make(map[Key]Document, len(docs))}
	for i := range docs {
		// In file order, and all before anything that is added later.
		if err := docs[i].created(epoch.Add(time.Duration(i) * time.Second)); err != nil {
			return nil, err
		}
		s.have[docs[i].Key] = docs[i]
	}
	switch c.Mode {
	case ModeDiscovery:
		if c.Secure != "" || len(c.Tokens) > 0 || c.TokenFile != "" {
			return nil, errors.New("a TLS address and tokens need mode bootstrap")
		}
		err = s.startDiscovery(c, meshConfig, docs)
	case ModeBootstrap:
		err = s.startBootstrap(c, docs)
	default:
		err = fmt.Errorf("unknown mode %q, want %q or %q", c.Mode, ModeDiscovery, ModeBootstrap)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Stop closes every listener and stream.
func (s *Server) Stop() { s.stop() }

func loadMesh(file string) (*meshconfig.MeshConfig, error) {
	if file == "" {
		return mesh.DefaultMeshConfig(), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("mesh config: %w", err)
	}
	parsed, err := mesh.ApplyMeshConfigDefaults(string(text))
	if err != nil {
		return nil, fmt.Errorf("mesh config %s: %w", file, err)
	}
	return parsed, nil
}

// serveDebug serves istiod's debug endpoints where istiod itself does not.
func serveDebug(address string, debug http.Handler) (*http.Server, string, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, "", fmt.Errorf("debug endpoints: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/debug/", debug)
	mux.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	return server, listener.Addr().String(), nil
}
