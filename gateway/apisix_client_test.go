package gateway_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"meshbridge/gateway"
	"meshbridge/gateway/apisixtest"
	"meshbridge/store"
)

// apisixDirs are directories that every version of APISIX has.
func apisixDirs() []string { return []string{"routes", "upstreams", "services", "plugin_configs"} }

// seed puts the keys that stand for the directories themselves.
func seed(tb testing.TB, s *store.Store) {
	tb.Helper()
	for _, dir := range []string{
		"consumers", "global_rules", "plugin_configs", "plugin_metadata", "plugins", "proto", "protos", "routes",
		"services", "ssl", "ssls", "stream_routes", "upstreams", "consumer_groups", "secrets",
	} {
		put(tb, s, "/apisix/"+dir+"/", "init_dir")
	}
}

// objects is what an APISIX should have of the store.
func objects(tb testing.TB, s *store.Store) map[string]string {
	tb.Helper()
	r, err := s.Range([]byte("/apisix/"), []byte("/apisix0"), store.RangeOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range r.KVs {
		if !strings.HasSuffix(string(kv.Key), "/") {
			out[string(kv.Key)] = string(kv.Value)
		}
	}
	return out
}

// runAPISIX runs a client until the test ends.
func runAPISIX(tb testing.TB, version, url string, configure ...func(*apisixtest.Client)) *apisixtest.Client {
	tb.Helper()
	c, err := apisixtest.New(version, url, "/apisix")
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range configure {
		f(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
		for _, fault := range c.Faults() {
			tb.Errorf("APISIX %s: %s", version, fault)
		}
		for _, r := range c.NeedlessReloads() {
			tb.Errorf("APISIX %s reloaded without need: %+v", version, r)
		}
	})
	return c
}

// converge waits until the client has what the store has.
func converge(tb testing.TB, c *apisixtest.Client, s *store.Store) {
	tb.Helper()
	want := objects(tb, s)
	if err := c.WaitFor(within(tb), func(got map[string]string) bool { return maps.Equal(got, want) }); err != nil {
		tb.Fatalf("APISIX has\n%v\nwant\n%v\nreloads %+v faults %v", c.Snapshot(), want, c.Reloads(), c.Faults())
	}
}

// eachVersion runs a test for every version of APISIX.
func eachVersion(t *testing.T, test func(t *testing.T, version string)) {
	t.Helper()
	for _, version := range apisixtest.Versions() {
		t.Run(version, func(t *testing.T) { test(t, version) })
	}
}

// mutate makes random changes in one revision or several.
func mutate(tb testing.TB, s *store.Store, random *rand.Rand, changes int) {
	tb.Helper()
	var ops []store.Op
	used := map[string]bool{}
	for range changes {
		dir := apisixDirs()[random.IntN(len(apisixDirs()))]
		key := fmt.Sprintf("/apisix/%s/%d", dir, random.IntN(20))
		if used[key] {
			continue
		}
		used[key] = true
		if random.IntN(4) == 0 {
			ops = append(ops, store.Op{Delete: &store.DeleteOp{Key: []byte(key)}})
			continue
		}
		value := fmt.Appendf(nil, `{"n":%d}`, random.Int64())
		ops = append(ops, store.Op{Put: &store.PutOp{Key: []byte(key), Value: value}})
	}
	for len(ops) > 0 {
		n := 1 + random.IntN(len(ops))
		if _, err := s.Txn(store.Txn{Success: ops[:n]}); err != nil {
			tb.Fatal(err)
		}
		ops = ops[n:]
	}
}

func TestAPISIXFollowsTheStore(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		t.Helper()
		s := start(t, gateway.Config{})
		seed(t, s.store)
		put(t, s.store, "/apisix/routes/1", `{"uri":"/a"}`)
		c := runAPISIX(t, version, s.url)
		converge(t, c, s.store)
		put(t, s.store, "/apisix/routes/1", `{"uri":"/b"}`)
		put(t, s.store, "/apisix/upstreams/1", `{"nodes":[]}`)
		converge(t, c, s.store)
		if _, err := s.store.Delete(store.DeleteOp{Key: []byte("/apisix/routes/1")}); err != nil {
			t.Fatal(err)
		}
		converge(t, c, s.store)
		if r := c.Reloads(); len(r) > 0 {
			t.Errorf("reloads: %+v", r)
		}
	})
}

// A client that loses connections, is late, and meets compactions always ends up with the store's
// content, and nothing goes wrong in it on the way.
func TestAPISIXStaysEqualThroughDisturbances(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		t.Helper()
		for seedNumber := range uint64(4) {
			random := rand.New(rand.NewPCG(seedNumber, 1))
			s := start(t, gateway.Config{})
			seed(t, s.store)
			c := runAPISIX(t, version, s.url)
			for range 40 {
				switch random.IntN(8) {
				case 0:
					c.Disconnect()
				case 1:
					if _, err := s.store.Compact(s.store.Revision() - random.Int64N(3)); err != nil {
						t.Log(err) // compacted already
					}
				case 2:
					converge(t, c, s.store)
				case 3:
					mutate(t, s.store, random, 60) // a burst
				default:
					mutate(t, s.store, random, 3)
				}
			}
			converge(t, c, s.store)
		}
	})
}

// etcd-adapter and apisix-mesh-agent stay silent when a watch asks for a revision of the server's former
// life, and APISIX keeps what it had for ever.
func TestAPISIXRecoversFromARestartWithANewEpoch(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		t.Helper()
		const epoch = 1_763_800_000_000
		first := newStore(t, store.Config{BaseRevision: epoch, RefuseFuture: true})
		seed(t, first)
		put(t, first, "/apisix/routes/gone", `{"life":1}`)
		put(t, first, "/apisix/routes/kept", `{"life":1}`)
		s := start(t, gateway.Config{Store: first})
		c := runAPISIX(t, version, s.url)
		converge(t, c, first)
		for life := int64(2); life < 5; life++ {
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			// The base is the clock in milliseconds, and the stop took some seconds.
			next := newStore(t, store.Config{BaseRevision: epoch + life*5000, RefuseFuture: true})
			seed(t, next)
			put(t, next, "/apisix/routes/kept", fmt.Sprintf(`{"life":%d}`, life))
			s = startOn(t, gateway.Config{Store: next}, s.addr)
			converge(t, c, next)
			put(t, next, "/apisix/upstreams/new", fmt.Sprintf(`{"life":%d}`, life))
			converge(t, c, next)
		}
	})
}

// The same store behind a server that comes back: nothing was missed, so nothing is loaded again.
func TestAPISIXResumesAfterAServerRestartOnTheSameStore(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		t.Helper()
		s := start(t, gateway.Config{})
		seed(t, s.store)
		c := runAPISIX(t, version, s.url)
		put(t, s.store, "/apisix/routes/1", `{"a":1}`)
		converge(t, c, s.store)
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		put(t, s.store, "/apisix/routes/2", `{"a":2}`)
		if _, err := s.store.Delete(store.DeleteOp{Key: []byte("/apisix/routes/1")}); err != nil {
			t.Fatal(err)
		}
		startOn(t, gateway.Config{Store: s.store}, s.addr)
		converge(t, c, s.store)
		if r := c.Reloads(); len(r) > 0 {
			t.Errorf("reloads: %+v", r)
		}
	})
}

// A worker that was busy while history was compacted away reads everything again, once.
func TestBusyAPISIXIsOvertakenByCompaction(t *testing.T) {
	s := start(t, gateway.Config{})
	seed(t, s.store)
	gate := make(chan struct{})
	blocked := make(chan struct{}, 1)
	reads := 0
	c := runAPISIX(t, apisixtest.V3_18, s.url, func(c *apisixtest.Client) {
		c.BeforeRead = func() {
			if reads++; reads == 3 {
				blocked <- struct{}{}
				<-gate
			}
		}
	})
	put(t, s.store, "/apisix/routes/0", `{}`)
	converge(t, c, s.store)
	put(t, s.store, "/apisix/routes/0", `{"n":0}`)
	<-blocked
	big := strings.Repeat("x", 64<<10)
	for n := range 250 { // more than the sockets hold
		put(t, s.store, fmt.Sprintf("/apisix/routes/%d", n%10), fmt.Sprintf(`{"n":%d,"big":%q}`, n, big))
	}
	if _, err := s.store.Compact(s.store.Revision()); err != nil {
		t.Fatal(err)
	}
	close(gate)
	converge(t, c, s.store)
	if r := c.Reloads(); len(r) != 1 || r[0].Reason != "compacted" {
		t.Errorf("reloads: %+v", r)
	}
}

func TestAPISIXStartsBeforeItsServer(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		t.Helper()
		placeholder := start(t, gateway.Config{})
		if err := placeholder.stop(); err != nil {
			t.Fatal(err)
		}
		c := runAPISIX(t, version, placeholder.url)
		st := newStore(t, store.Config{})
		seed(t, st)
		put(t, st, "/apisix/routes/1", `{}`)
		startOn(t, gateway.Config{Store: st}, placeholder.addr)
		converge(t, c, st)
	})
}

// The whole life of apisix init_etcd against a server that owns the directories' keys.
func TestInitEtcdSucceeds(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		t.Helper()
		s := start(t, gateway.Config{Admit: func(w gateway.Write) gateway.Admission {
			if strings.HasSuffix(string(w.Key), "/") && !w.Delete {
				return gateway.Ignored
			}
			return gateway.Denied
		}})
		seed(t, s.store)
		before := s.store.Revision()
		c, err := apisixtest.New(version, s.url, "/apisix")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.InitEtcd(within(t), false); err != nil {
			t.Fatal(err)
		}
		if after := s.store.Revision(); after != before {
			t.Errorf("ignored puts moved the revision from %d to %d", before, after)
		}
	})
}
