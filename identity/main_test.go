package identity_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"meshbridge/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long tests wait for what should take milliseconds.
const patience = 20 * time.Second

// workload is the ID that sources are asked for.
const workload = "spiffe://cluster.local/ns/default/sa/reviews"

// logbook collects log lines; tests look for what must and what must never be in them.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newLogbook() *logbook { return &logbook{more: make(chan struct{}, 1)} }

func (l *logbook) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.text.Write(line)
}

func (l *logbook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until the text has been logged that often.
func (l *logbook) await(t *testing.T, text string, times int) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for strings.Count(l.String(), text) < times {
		select {
		case <-l.more:
		case <-timeout.C:
			t.Fatalf("not logged %d times: %s\n%s", times, text, l)
		}
	}
}

// run runs a source until the test ends, or stop is called.
func run(t *testing.T, source identity.Source) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := source.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// await returns the identity once it satisfies the condition.
func await(t *testing.T, source identity.Source, what string, condition func(*identity.Identity) bool) *identity.Identity {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		changed := source.Changed()
		if current := source.Current(); current != nil && condition(current) {
			return current
		}
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func anyIdentity(*identity.Identity) bool { return true }

func unlike(old *identity.Identity) func(*identity.Identity) bool {
	return func(i *identity.Identity) bool { return i != old }
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func tempFile(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	write(t, path, text)
	return path
}

// value returns a metric's value, summed over its labels.
func value(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		var sum float64
		for _, m := range family.GetMetric() {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
		return sum
	}
	t.Fatal(errors.New("no metric " + name))
	return 0
}

// checkSecrets fails the test if the log shows any part of the key, or the other secrets.
func checkSecrets(t *testing.T, log *logbook, current *identity.Identity, secrets ...string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(current.Certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "\n")
	for _, secret := range append(secrets, lines[1:3]...) {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log shows a secret:\n%s", log)
		}
	}
	if strings.Contains(log.String(), "PRIVATE KEY") {
		t.Errorf("the log shows a key:\n%s", log)
	}
}
