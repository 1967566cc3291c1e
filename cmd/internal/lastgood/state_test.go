package lastgood

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// source delivers what the test says.
type source struct{ updates chan xds.Update }

func (s source) Run(ctx context.Context, deliver func(xds.Update)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-s.updates:
			deliver(u)
		}
	}
}

// following is a State that follows a source in a bubble.
type following struct {
	source source
	log    *bytes.Buffer // read it after wait

	mu  sync.Mutex
	got []xds.Update // guarded by mu
}

// follow runs the test with a State that follows a source, in a bubble.
func follow(t *testing.T, c Config, test func(f *following)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &following{source: source{make(chan xds.Update)}, log: &bytes.Buffer{}}
		c.After, c.Logger = 2*time.Second, slog.New(slog.NewTextHandler(f.log, nil))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- New(c).Follow(ctx, f.source, f.take)
		}()
		test(f)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (f *following) take(u xds.Update) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, u)
}

// wait lets time go by and returns what was delivered meanwhile.
func (f *following) wait(d time.Duration) []xds.Update {
	time.Sleep(d) //nolint:forbidigo // the bubble's clock
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.got
	f.got = nil
	return got
}

func (f *following) send(u xds.Update) []xds.Update {
	f.source.updates <- u
	return f.wait(0)
}

// saved writes a file and returns its path.
func saved(t *testing.T, world *xds.Snapshot, change func(*content)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "world")
	c := contentOf(world, false)
	if change != nil {
		change(&c)
	}
	if _, err := writeFile(path, c); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAWorldOfTheFileIsReplacedAsAWholeByExactlyWhatDiffers(t *testing.T) {
	old := snapshotOf(t, xdstest.Mesh(4, 1).Resources()...)
	follow(t, Config{Path: saved(t, old, nil), Identity: self}, func(f *following) {
		if got := f.wait(2*time.Second - 1); len(got) != 0 {
			t.Fatalf("delivered before istiod had its time: %v", got)
		}
		got := f.wait(1)
		if len(got) != 1 || !got[0].Stale || !got[0].Complete() || !cmp.Equal(bodies(old), bodies(got[0].Snapshot)) {
			t.Fatalf("delivered %+v, want the world of the file, marked as stale", got)
		}

		// istiod comes back with three services of four, one with other endpoints: in pieces.
		resources := xdstest.Mesh(3, 1)
		resources.Endpoints[1] = xdstest.Endpoints(1, 2)
		now := snapshotOf(t, resources.Resources()...)
		partial := now.With(nil, []xds.Key{{Type: xds.RouteType, Name: "8000"}})
		for _, u := range []xds.Update{
			{Snapshot: &xds.Snapshot{}, Pending: []xds.Key{{Type: xds.ClusterType}, {Type: xds.ListenerType}}},
			{Snapshot: now, Pending: []xds.Key{{Type: xds.ListenerType}}},
			{Snapshot: partial, Pending: []xds.Key{{Type: xds.RouteType, Name: "8000"}}},
		} {
			if got := f.send(u); len(got) != 0 {
				t.Fatalf("a partial world was delivered: %+v", got)
			}
		}
		got = f.send(xds.Update{Snapshot: now, Changed: []xds.Key{{Type: xds.RouteType, Name: "8000"}}})
		if len(got) != 1 || got[0].Stale || !cmp.Equal(bodies(now), bodies(got[0].Snapshot)) {
			t.Fatalf("delivered %+v, want the world of istiod", got)
		}
		want := difference(old, now)
		if d := cmp.Diff(len(want), len(got[0].Changed)); d != "" {
			t.Error(d)
		}
		for _, k := range got[0].Changed {
			a, b := old.Get(k), now.Get(k)
			if a != nil && b != nil && bytes.Equal(a.Body.GetValue(), b.Body.GetValue()) {
				t.Errorf("%s is said to have changed", k)
			}
		}
		// From then on it is as if there had been no file.
		next := xds.Update{Snapshot: now, Changed: []xds.Key{{Type: xds.ClusterType, Name: "x"}}}
		if got := f.send(next); len(got) != 1 || !cmp.Equal(got[0].Changed, next.Changed) {
			t.Errorf("delivered %+v", got)
		}
	})
}

// What istiod has named and not sent yet, or sent in a form that is not valid, is served as it was.
func TestEndpointsThatHaveNotComeYetStayAsTheyWere(t *testing.T) {
	old := snapshotOf(t, xdstest.Mesh(2, 1).Resources()...)
	missing := xds.Key{Type: xds.EndpointType, Name: xdstest.ClusterName(1)}
	cluster := xds.Key{Type: xds.ClusterType, Name: xdstest.ClusterName(0)}
	follow(t, Config{Path: saved(t, old, nil), Identity: self}, func(f *following) {
		f.wait(2 * time.Second)
		without := old.With(nil, []xds.Key{missing, cluster})
		got := f.send(xds.Update{Snapshot: without, Pending: []xds.Key{missing}, Rejected: []xds.Rejection{{Key: cluster}}})
		if len(got) != 1 || len(got[0].Changed) != 0 || got[0].Snapshot.Get(missing) == nil || got[0].Snapshot.Get(cluster) == nil {
			t.Fatalf("delivered %+v, want what was there", got)
		}
		// The cluster is acceptable again; the endpoints are not wanted any more.
		got = f.send(xds.Update{Snapshot: old.With(nil, []xds.Key{missing}), Changed: []xds.Key{cluster}})
		if len(got) != 1 || !cmp.Equal(got[0].Changed, []xds.Key{cluster, missing}) || got[0].Snapshot.Get(missing) != nil {
			t.Errorf("delivered %+v, want the cluster and the end of the endpoints", got)
		}
	})
}

func TestAnIstiodThatAnswersInTimeIsFollowedAlone(t *testing.T) {
	old, now := snapshotOf(t, xdstest.Mesh(4, 1).Resources()...), snapshotOf(t, xdstest.Mesh(3, 1).Resources()...)
	follow(t, Config{Path: saved(t, old, nil), Identity: self}, func(f *following) {
		if got := f.send(xds.Update{Snapshot: now}); len(got) != 1 || got[0].Stale {
			t.Fatalf("delivered %+v", got)
		}
		if got := f.wait(time.Hour); len(got) != 0 {
			t.Errorf("delivered %+v later", got)
		}
	})
}

func TestAFileThatDoesNotFitIsRefusedAndSaidSo(t *testing.T) {
	world := snapshotOf(t, xdstest.Mesh(2, 1).Resources()...)
	damaged := saved(t, world, nil)
	if err := os.Truncate(damaged, 200); err != nil {
		t.Fatal(err)
	}
	old := saved(t, world, nil)
	// The bubble's clock starts in the year 2000.
	if err := os.Chtimes(old, time.Time{}, time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		config Config
		want   string
	}{
		"damaged":              {Config{Path: damaged}, "is damaged"},
		"of another node":      {Config{Path: saved(t, world, func(c *content) { c.Node = "other" })}, "belongs to node other"},
		"of another cluster":   {Config{Path: saved(t, world, func(c *content) { c.Cluster = "other" })}, "of cluster other"},
		"too old":              {Config{Path: old, MaxAge: time.Hour}, "1h0m0s is the most"},
		"without private keys": {Config{Path: saved(t, world, func(c *content) { c.LeftOut = 1 })}, "--last-good-keys"},
		"absent":               {Config{Path: filepath.Join(t.TempDir(), "none")}, "there is no last good state"},
	} {
		t.Run(name, func(t *testing.T) {
			test.config.Identity = self
			follow(t, test.config, func(f *following) {
				if got := f.wait(time.Hour); len(got) != 0 || !strings.Contains(f.log.String(), test.want) {
					t.Errorf("delivered %d updates; the log says %s", len(got), f.log)
				}
				// Nothing is lost by that.
				if got := f.send(xds.Update{Snapshot: world}); len(got) != 1 || got[0].Stale {
					t.Errorf("istiod's world: %+v", got)
				}
			})
		})
	}
}

func TestAnAPISIXThatStartsWithTheBridgeIsServedWithoutPrivateKeys(t *testing.T) {
	path := saved(t, snapshotOf(t, xdstest.Mesh(2, 1).Resources()...), func(c *content) { c.LeftOut = 1 })
	follow(t, Config{Path: path, Identity: self, ServeIncomplete: true}, func(f *following) {
		if got := f.wait(2 * time.Second); len(got) != 1 || !got[0].Stale {
			t.Errorf("delivered %+v", got)
		}
	})
}

// What another version accepted and this one does not is left out, and the rest is served.
func TestResourcesThatAreNotValidAnyMoreAreLeftOut(t *testing.T) {
	world := snapshotOf(t, xdstest.Mesh(2, 1).Resources()...)
	invalid := &xds.Resource{Body: xdstest.Any(&endpointpb.ClusterLoadAssignment{})}
	path := saved(t, world, func(c *content) { c.resources, c.Resources = append(c.resources, invalid), c.Resources+1 })
	follow(t, Config{Path: path, Identity: self}, func(f *following) {
		got := f.wait(2 * time.Second)
		if len(got) != 1 || !cmp.Equal(bodies(world), bodies(got[0].Snapshot)) || len(got[0].Rejected) != 1 {
			t.Errorf("delivered %+v", got)
		}
	})
}

// keeping runs the test with a State that writes, in a bubble.
func keeping(t *testing.T, connected func() bool, test func(s *State, path string)) {
	t.Helper()
	keepingIn(t, prometheus.NewRegistry(), connected, test)
}

func keepingIn(t *testing.T, registry *prometheus.Registry, connected func() bool, test func(s *State, path string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "world")
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Path: path, Identity: self, Connected: connected, Registerer: registry})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		test(s, path)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// holds tells how many clusters the file has; -1 is no file.
func holds(path string) int {
	synctest.Wait()
	c, _, err := readFile(path)
	if err != nil {
		return -1
	}
	return xds.Restore(c.resources, c.Received).Snapshot.Len(xds.ClusterType)
}

func TestTheFileIsWrittenWhenChangesHaveSettledAndForEndpointsRarely(t *testing.T) {
	worlds := make([]World, 6)
	for i := range worlds {
		worlds[i].Snapshot = snapshotOf(t, xdstest.Mesh(i+1, 1).Resources()...)
	}
	pass := func(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the bubble's clock
	keeping(t, nil, func(s *State, path string) {
		want := func(n int, when string) {
			t.Helper()
			if got := holds(path); got != n {
				t.Fatalf("%s: %d clusters, want %d", when, got, n)
			}
		}
		s.Keep(time.Now(), worlds[0], false)
		pass(quiet - 1)
		want(-1, "before it is quiet")
		pass(1)
		want(1, "when it is quiet")
		s.Keep(time.Now(), worlds[1], true)
		pass(endpointsAfter - 1)
		want(1, "endpoints alone")
		pass(1)
		want(2, "endpoints alone, in time")
		s.Keep(time.Now(), worlds[2], true)
		pass(time.Second)
		s.Keep(time.Now(), worlds[3], false)
		pass(quiet)
		want(4, "more than endpoints")
		for range atMost / time.Second {
			s.Keep(time.Now(), worlds[4], false)
			pass(time.Second)
		}
		want(5, "never quiet")
		s.Keep(time.Now(), worlds[5], true)
	})
}

func TestWhatIsNotWrittenYetIsWrittenAtTheEnd(t *testing.T) {
	world := World{Snapshot: snapshotOf(t, xdstest.Mesh(2, 1).Resources()...)}
	var written string
	keeping(t, nil, func(s *State, path string) {
		written = path
		s.Keep(time.Now(), world, true)
	})
	if c, _, err := readFile(written); err != nil || c.Identity != self {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestAFileIsCurrentForAsLongAsIstiodIsThere(t *testing.T) {
	var connected atomic.Bool
	connected.Store(true)
	world := World{Snapshot: snapshotOf(t, xdstest.Mesh(2, 1).Resources()...)}
	keeping(t, connected.Load, func(s *State, path string) {
		s.Keep(time.Now(), world, false)
		confirmed := func() time.Time {
			synctest.Wait()
			_, at, err := readFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
		pass := func(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the bubble's clock
		pass(48 * time.Hour)
		if age := time.Since(confirmed()); age > confirmEvery {
			t.Errorf("current %v ago, with istiod there", age)
		}
		connected.Store(false)
		pass(time.Hour)
		if age := time.Since(confirmed()); age < time.Hour-confirmEvery {
			t.Errorf("current %v ago, an hour after istiod went away", age)
		}
	})
}

func TestAFailureIsCountedAndTriedAgain(t *testing.T) {
	world := World{Snapshot: snapshotOf(t, xdstest.Mesh(2, 1).Resources()...)}
	registry := prometheus.NewRegistry()
	failures := func() (n float64) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "meshbridge_last_good_state_failures_total" {
				n = f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		return n
	}
	keepingIn(t, registry, nil, func(s *State, path string) {
		// A directory is in the way.
		if err := os.Mkdir(path+".new", 0o700); err != nil {
			t.Fatal(err)
		}
		s.Keep(time.Now(), world, false)
		pass := func(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the bubble's clock
		pass(quiet)
		if got := holds(path); got != -1 {
			t.Fatalf("%d clusters", got)
		}
		if n := failures(); n != 1 {
			t.Errorf("%v failures are counted, want 1", n)
		}
		if err := os.Remove(path + ".new"); err != nil {
			t.Fatal(err)
		}
		pass(retryAfter)
		if got := holds(path); got != 2 {
			t.Errorf("%d clusters later, want 2", got)
		}
	})
}
