package accesslog

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	access "meshbridge/translate/accesslog"
)

// patience bounds what only a failing test waits for.
const patience = 30 * time.Second

// writing is a Writer that runs.
type writing struct {
	*Writer
	registry *prometheus.Registry
	said     *said
	stop     func() // and wait until it has ended
}

func start(t *testing.T, c Config) *writing {
	t.Helper()
	w := prepare(t, c)
	w.run(t)
	return w
}

// prepare makes a Writer that does not run yet.
func prepare(t *testing.T, c Config) *writing {
	t.Helper()
	w := &writing{registry: prometheus.NewRegistry(), said: &said{}}
	c.Registerer, c.Logger = w.registry, slog.New(slog.NewTextHandler(w.said, nil))
	var err error
	if w.Writer, err = New(c); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *writing) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", w.said)
		}
	})
	t.Cleanup(w.stop)
}

// counted returns how many entries of a kind had an outcome.
func (w *writing) counted(t *testing.T, kind, outcome string) int {
	t.Helper()
	return w.value(t, "meshbridge_access_log_entries_total", map[string]string{"kind": kind, "outcome": outcome})
}

// failed returns how many attempts failed for a reason.
func (w *writing) failed(t *testing.T, reason string) int {
	t.Helper()
	return w.value(t, "meshbridge_access_log_failures_total", map[string]string{"reason": reason})
}

// value returns that of a counter, 0 where there is none.
func (w *writing) value(t *testing.T, name string, labels map[string]string) int {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			if f.GetName() == name && maps.Equal(has, labels) {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in %s: %s", patience, what)
		case <-tick.C:
		}
	}
}

// said is a log.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// times tells how often something was said.
func (s *said) times(text string) int { return strings.Count(s.String(), text) }

func named(route string) *access.Entry { return &access.Entry{Route: route} }
