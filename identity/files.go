package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The files of a workload's identity, as Istio's agent names them.
const (
	chainFile       = "cert-chain.pem"
	keyFile         = "key.pem"
	authoritiesFile = "root-cert.pem"
)

const defaultInterval = 5 * time.Second

// FilesConfig configures Files.
type FilesConfig struct {
	// Dir holds cert-chain.pem (the certificate first), key.pem and root-cert.pem; required.
	Dir string
	// Interval is the time between looks at the files; default 5 s.
	Interval time.Duration
	// Logger receives rotations and failures, without keys; default: discard.
	Logger *slog.Logger
	// Registerer receives the metrics meshbridge_identity_*; default: none.
	Registerer prometheus.Registerer
}

// files reads the files again and again: what they hold, not what the file system tells about them,
// decides whether they changed. That is right for Kubernetes' symbolic links, for files written in
// place and for network file systems, and the files are small.
type files struct {
	*state
	config FilesConfig

	// Owned by Run.
	last    [sha256.Size]byte // of what was read last
	failure string            // what was wrong with it; "" for nothing
	warned  bool              // of the current certificate's end
}

// Files returns a Source that reads a directory that somebody else keeps up to date. Only files that
// fit together become current: while they are being replaced, the last identity stays.
func Files(config FilesConfig) (Source, error) {
	if config.Dir == "" {
		return nil, errors.New("identity: the directory of the certificate files is not set")
	}
	config.Interval = cmp.Or(config.Interval, defaultInterval)
	m, err := newMetrics(config.Registerer)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return &files{state: newState(config.Logger, m), config: config}, nil
}

// Run implements Source.
func (f *files) Run(ctx context.Context) error {
	for {
		f.look(ctx)
		if !sleep(ctx, f.config.Interval) {
			return nil
		}
	}
}

// look reads the files and makes them current if they differ and are good. A failure is reported
// once, not with every look.
func (f *files) look(ctx context.Context) {
	next, err := f.read()
	if err != nil {
		if f.failure != err.Error() {
			f.failure = err.Error()
			f.failed(ctx, f.config.Dir, err, 0)
		}
		return
	}
	f.failure = ""
	if next != nil {
		f.warned = false
		f.set(ctx, next)
	}
	if current := f.Current(); !f.warned && time.Now().Round(0).After(current.NotAfter) {
		f.warned = true
		f.failed(ctx, f.config.Dir, invalidError{errors.New("the certificate expired and has not been replaced")}, 0)
	}
}

// read returns nil where the files are as they were.
func (f *files) read() (*Identity, error) {
	var texts [3][]byte
	for i, name := range []string{chainFile, keyFile, authoritiesFile} {
		text, err := os.ReadFile(filepath.Join(f.config.Dir, name))
		if err != nil {
			return nil, fileError{err}
		}
		texts[i] = text
	}
	sum := sha256.Sum256(bytes.Join(texts[:], []byte{0}))
	if sum == f.last && f.failure == "" {
		return nil, nil //nolint:nilnil // nothing new and nothing wrong
	}
	next, err := join(texts[0], texts[1], texts[2], time.Now())
	if err != nil {
		return nil, fileError{fmt.Errorf("certificate files in %s: %w", f.config.Dir, err)}
	}
	f.last = sum
	if current := f.Current(); current != nil && current.same(next) {
		return nil, nil //nolint:nilnil // back to what it was
	}
	return next, nil
}
