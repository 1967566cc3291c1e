package lastgood

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/xds"
)

// When the file is written. Endpoints come and go all the time.
const (
	quiet          = 2 * time.Second  // after the last change
	atMost         = 10 * time.Second // after the first change
	endpointsAfter = 30 * time.Second // where only endpoints changed
	retryAfter     = time.Minute
	// confirmEvery is how often the file is told to be current while nothing changes.
	confirmEvery = time.Minute
)

// Config configures New.
type Config struct {
	// Path of the file.
	Path string
	// Identity is whose configuration it is.
	Identity Identity
	// After is how long the source gets to send a complete world before the file is served.
	After time.Duration
	// MaxAge is how long ago the file may have been current to be served; 0 is for ever.
	MaxAge time.Duration
	// Keys keeps private keys, too.
	Keys bool
	// ServeIncomplete serves a file from which private keys were left out. It is for an APISIX that starts
	// with the bridge: one that was there before has the certificates, and would drop them.
	ServeIncomplete bool
	// Connected tells whether what is served is current; nil is always.
	Connected func() bool
	// Registerer and Logger may be nil.
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// State is the file. Its methods may be called by any goroutine.
type State struct {
	// set once
	config  Config
	log     *slog.Logger
	metrics *metrics
	wake    chan struct{} // has room for one signal

	mu sync.Mutex
	// Guarded by mu: what is to be written, since when, whether more than endpoints differ, and when it is
	// due; zero times where nothing is.
	world      World
	since, due time.Time
	prompt     bool
	paused     bool // by mu; another process may write the file
	// Guarded by mu: of the world that was loaded.
	names   map[string][]netip.Addr
	leftOut int
}

// New returns a State. It neither reads nor writes.
func New(c Config) *State {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Connected == nil {
		c.Connected = func() bool { return true }
	}
	return &State{config: c, log: c.Logger, metrics: newMetrics(c.Registerer), wake: make(chan struct{}, 1)}
}

// Keep takes a world that is served; it is written later. endpoints tells that only endpoints differ
// from the one before.
func (s *State) Keep(now time.Time, w World, endpoints bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.world, s.prompt = w, s.prompt || !endpoints
	if s.since.IsZero() {
		s.since = now
	}
	s.due = s.since.Add(endpointsAfter)
	if s.prompt {
		s.due = now.Add(quiet)
		if most := s.since.Add(atMost); s.due.After(most) {
			s.due = most
		}
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Pause stops writing, or goes on: another process may write the file.
func (s *State) Pause(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = on
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next returns when the file is to be written; zero is never.
func (s *State) next() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paused {
		return time.Time{}
	}
	return s.due
}

// Names returns the addresses of names that came with the world that Follow delivered.
func (s *State) Names() map[string][]netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names
}

// LeftOut returns how many resources are missing in the world that Follow delivered, because they
// have private keys.
func (s *State) LeftOut() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leftOut
}

// Run writes the file until ctx ends, and what has not been written by then.
func (s *State) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	confirm := time.NewTicker(confirmEvery)
	defer confirm.Stop()
	written := false
	for {
		due := s.next()
		now := time.Now()
		if ctx.Err() != nil {
			if !due.IsZero() {
				s.write(ctx, now)
			}
			return nil
		}
		switch {
		case due.IsZero():
			timer.Reset(time.Hour)
		case !now.Before(due):
			written = s.write(ctx, now)
			continue
		default:
			timer.Reset(due.Sub(now))
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-timer.C:
		case <-confirm.C:
			s.mu.Lock()
			paused := s.paused
			s.mu.Unlock()
			if written && !paused && s.config.Connected() {
				s.confirm(ctx)
			}
		}
	}
}

// write writes the newest world, and tries again later where that fails: the file of before stays.
func (s *State) write(ctx context.Context, now time.Time) (ok bool) {
	s.mu.Lock()
	w := s.world
	s.since, s.due, s.prompt = time.Time{}, time.Time{}, false
	s.mu.Unlock()
	c := content{header: header{Identity: s.config.Identity, Saved: now.UTC(), Received: w.Received.UTC(), Names: w.Names}}
	c.resources, c.LeftOut = resourcesOf(w.Snapshot, s.config.Keys)
	c.Resources = len(c.resources)
	size, err := writeFile(s.config.Path, c)
	if err != nil {
		s.metrics.failures.Inc()
		s.log.LogAttrs(ctx, slog.LevelWarn, "last good state is not written, the one of before stays", slog.Any("error", err))
		s.mu.Lock()
		if s.due.IsZero() {
			s.since, s.due = now, now.Add(retryAfter)
		}
		s.mu.Unlock()
		return false
	}
	s.metrics.wrote(now, size)
	s.log.LogAttrs(ctx, slog.LevelDebug, "last good state written", slog.String("path", s.config.Path),
		slog.Int("resources", c.Resources), slog.Int("left_out", c.LeftOut), slog.Int64("bytes", size))
	return true
}

// confirm says that the file is what istiod says still, in the time of its modification.
func (s *State) confirm(ctx context.Context) {
	now := time.Now()
	if err := os.Chtimes(s.config.Path, now, now); err != nil {
		s.metrics.failures.Inc()
		s.log.LogAttrs(ctx, slog.LevelWarn, "last good state cannot be marked as current", slog.Any("error", err))
		return
	}
	s.metrics.saved.Set(float64(now.Unix()))
}

// load returns the world of the file as an Update, and false where there is none to be had, of which it
// logs the reason.
func (s *State) load(ctx context.Context) (u xds.Update, ok bool) {
	refuse := func(reason slog.Attr) (xds.Update, bool) {
		s.log.LogAttrs(ctx, slog.LevelWarn, "last good state is not served", slog.String("path", s.config.Path), reason)
		return xds.Update{}, false
	}
	c, confirmed, err := readFile(s.config.Path)
	age := time.Since(confirmed)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.log.LogAttrs(ctx, slog.LevelInfo, "there is no last good state", slog.String("path", s.config.Path))
		return u, false
	case err != nil:
		return refuse(slog.Any("error", err))
	case c.Identity != s.config.Identity:
		return refuse(slog.String("reason", "it belongs to node "+c.Node+" of cluster "+c.Cluster))
	case s.config.MaxAge > 0 && age > s.config.MaxAge:
		return refuse(slog.String("reason", "it was current "+age.Round(time.Second).String()+" ago, and "+s.config.MaxAge.String()+" is the most"))
	case c.LeftOut > 0 && !s.config.ServeIncomplete:
		return refuse(slog.String("reason", "private keys are not part of it, and an APISIX that has them would drop them: --last-good-keys keeps them"))
	}
	u = xds.Restore(c.resources, c.Received)
	for _, r := range u.Rejected {
		s.log.LogAttrs(ctx, slog.LevelWarn, "resource of the last good state is left out", slog.String("resource", r.Key.String()), slog.Any("error", r.Err))
	}
	s.mu.Lock()
	s.names, s.leftOut = c.Names, c.LeftOut
	s.mu.Unlock()
	s.log.LogAttrs(ctx, slog.LevelDebug, "last good state read", slog.String("path", s.config.Path),
		slog.Int("resources", c.Resources), slog.Int("left_out", c.LeftOut), slog.Duration("age", age.Round(time.Second)))
	return u, true
}

func sortedTypes(s *xds.Snapshot) []string {
	types := s.Types()
	slices.Sort(types)
	return types
}
