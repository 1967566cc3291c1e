package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// TLSFiles names the PEM files that secure a listener.
type TLSFiles struct {
	// Cert and Key are the server's certificate chain and private key.
	Cert, Key string
	// ClientCA, when set, holds the authorities of client certificates: every client must then show
	// one that they signed.
	ClientCA string
}

// Config loads the files and returns a configuration for Config.TLS. It reads them again when they
// change, which each handshake checks, so that a rotated certificate needs no restart. A set of files
// that does not load, for example half written, is logged and leaves the previous one in use; a nil
// logger discards that. Connections that exist keep what they were made with.
//
// An error names the file at fault.
func (f TLSFiles) Config(log *slog.Logger) (*tls.Config, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &tlsReloader{files: f, log: log}
	seen, err := f.stat()
	if err != nil {
		return nil, err
	}
	if r.config, err = f.load(); err != nil {
		return nil, err
	}
	r.seen = seen
	config := r.config.Clone()
	config.GetConfigForClient = r.current
	return config, nil
}

// load reads all files.
func (f TLSFiles) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if f.ClientCA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}
	config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client CA %s: no PEM certificate in it", f.ClientCA)
	}
	return config, nil
}

// tlsState tells one version of the files from the next. It follows symbolic links, which is how
// mounted secrets change.
type tlsState [3]struct {
	modified time.Time
	size     int64
}

func (f TLSFiles) stat() (tlsState, error) {
	if f.Cert == "" || f.Key == "" {
		return tlsState{}, errors.New("TLS needs a certificate and a key")
	}
	var state tlsState
	for i, path := range []string{f.Cert, f.Key, f.ClientCA} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return tlsState{}, err
		}
		state[i].modified, state[i].size = info.ModTime(), info.Size()
	}
	return state, nil
}

// tlsReloader holds what was last loaded.
type tlsReloader struct {
	// Set once.
	files TLSFiles
	log   *slog.Logger

	mu     sync.Mutex
	config *tls.Config // never modified; guarded by mu
	seen   tlsState    // when config was loaded, or loading failed; guarded by mu
}

// current is a tls.Config.GetConfigForClient.
func (r *tlsReloader) current(*tls.ClientHelloInfo) (*tls.Config, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The state is taken before the files are read: what is written in between looks changed next time.
	state, err := r.files.stat()
	if err == nil && state == r.seen {
		return r.config, nil
	}
	var loaded *tls.Config
	if err == nil {
		loaded, err = r.files.load()
	}
	if err != nil {
		if state != r.seen {
			r.log.Warn("TLS files not loaded, the previous ones stay in use", slog.Any("error", err))
		}
		r.seen = state
		return r.config, nil
	}
	r.config, r.seen = loaded, state
	r.log.Info("TLS files loaded", slog.String("certificate", r.files.Cert))
	return r.config, nil
}
