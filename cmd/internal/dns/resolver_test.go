package dns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/dns/dnsmessage"

	"meshbridge/translate"
)

// world is what lookups find in a test.
type world struct {
	*Resolver

	mu      sync.Mutex
	answers map[string]answer // guarded by mu
	errs    map[string]error  // guarded by mu
	took    time.Duration     // guarded by mu: how long a lookup takes
	lookups []string          // guarded by mu: name and families, in order
	running int               // guarded by mu
	most    int               // guarded by mu: the most that ran at once
}

// bubble runs a Resolver whose lookups find what the test says, with a clock of its own.
func bubble(t *testing.T, c Config, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{answers: map[string]answer{}, errs: map[string]error{}}
		w.Resolver = newResolver(c, w.find)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		test(t, w)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (w *world) find(ctx context.Context, host translate.HostName) (answer, error) {
	name := host.Name
	w.mu.Lock()
	w.lookups = append(w.lookups, fmt.Sprint(name, " ", host.IPv4, " ", host.IPv6))
	w.running++
	w.most = max(w.most, w.running)
	found, err, took := w.answers[name], w.errs[name], w.took
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.running--
		w.mu.Unlock()
	}()
	timer := time.NewTimer(took)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-timer.C:
		return found, err
	}
}

func (w *world) set(name string, ttl time.Duration, list ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[name] = answer{addresses: addresses(list...), ttl: ttl}
	delete(w.errs, name)
}

func (w *world) fail(name, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errs[name] = errors.New(why)
}

// pass lets time go by and returns the lookups that began meanwhile.
func (w *world) pass(d time.Duration) []string {
	time.Sleep(d) //nolint:forbidigo // the bubble's clock
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	lookups := w.lookups
	w.lookups = nil
	return lookups
}

func (w *world) signalled() bool {
	select {
	case <-w.Changed():
		return true
	default:
		return false
	}
}

func gauge(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func name(n string, refresh translate.Refresh) translate.HostName {
	return translate.HostName{Name: n, IPv4: true, Refresh: refresh}
}

var istio = translate.Refresh{Interval: 60 * time.Second, RespectTTL: true}

func TestANameIsLookedUpAgainWhenItsTimeToLiveIsOver(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		t.Helper()
		w.set("a", 7*time.Second, "192.0.2.1")
		w.set("b", 0, "192.0.2.2")
		w.Resolve([]translate.HostName{name("a", istio), name("b", istio), name("c", translate.Refresh{Interval: time.Second})})
		if got := w.pass(0); len(got) != 3 || !w.signalled() {
			t.Fatalf("lookups %q", got)
		}
		count := map[string]int{}
		for _, l := range w.pass(63 * time.Second) {
			count[l]++
		}
		if diff := cmp.Diff(map[string]int{"a true false": 9, "b true false": 1, "c true false": 63}, count); diff != "" {
			t.Error(diff)
		}
		if w.signalled() {
			t.Error("equal answers are a change")
		}
	})
}

func TestOneLookupServesAllClustersAsOftenAsTheMostEagerWants(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		t.Helper()
		w.set("a", 0, "192.0.2.1")
		w.Resolve([]translate.HostName{
			name("a", istio),
			{Name: "a", IPv6: true, Refresh: translate.Refresh{Interval: 10 * time.Second}},
			name("a", istio),
		})
		if diff := cmp.Diff(slices.Repeat([]string{"a true true"}, 4), w.pass(35*time.Second)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTheLastGoodAnswerOutlivesFailures(t *testing.T) {
	registry := prometheus.NewRegistry()
	bubble(t, Config{Registerer: registry}, func(t *testing.T, w *world) {
		t.Helper()
		w.set("a", 10*time.Second, "192.0.2.1")
		w.fail("b", "SERVFAIL")
		w.Resolve([]translate.HostName{name("a", istio), name("b", istio)})
		w.pass(0)
		answered := time.Now()
		got := w.Answers()
		if !slices.Equal(got.Addresses["a"], addresses("192.0.2.1")) || got.Errors["b"] != "SERVFAIL" || !got.Answered("b") || got.Answered("c") {
			t.Errorf("answers %+v", got)
		}
		if _, known := got.Addresses["b"]; known {
			t.Error("a failure is an answer without addresses")
		}
		w.signalled()
		w.fail("a", "no answer in time")
		w.pass(10 * time.Second)
		got = w.Answers()
		if !w.signalled() || !slices.Equal(got.Addresses["a"], addresses("192.0.2.1")) || got.Errors["a"] != "no answer in time" {
			t.Errorf("after a failure: %+v", got)
		}
		if age := gauge(t, registry, "meshbridge_dns_oldest_failing_answer_timestamp_seconds"); age != float64(answered.Unix()) {
			t.Errorf("the oldest answer is of %v, want %v", age, answered.Unix())
		}
		if failing := gauge(t, registry, "meshbridge_dns_failing_names"); failing != 2 {
			t.Errorf("%v names fail, want 2", failing)
		}
		w.pass(time.Minute)
		if w.signalled() {
			t.Error("the same failure is a change")
		}
		w.set("a", 0) // the name is gone, which is an answer
		w.pass(time.Minute)
		if got := w.Answers(); !w.signalled() || len(got.Addresses["a"]) != 0 || got.Errors["a"] != "" {
			t.Errorf("after the name was gone: %+v", got)
		}
	})
}

func TestFailuresAreRepeatedLessAndLessOften(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		t.Helper()
		w.fail("a", "SERVFAIL")
		w.Resolve([]translate.HostName{name("a", translate.Refresh{
			Interval: time.Hour, FailureInterval: time.Second, FailureMax: 8 * time.Second,
		})})
		lookups := len(w.pass(10 * time.Minute))
		if lookups < 600/8 || lookups > 600 {
			t.Errorf("%d lookups in ten minutes, want one in at most 8 s, and 4 s on average", lookups)
		}
		w.set("a", 0, "192.0.2.1")
		w.pass(8 * time.Second)
		if got := w.pass(59 * time.Minute); got != nil {
			t.Errorf("lookups after a success: %q", got)
		}
	})
}

func TestJitterComesOnTop(t *testing.T) {
	p := translate.Refresh{Interval: 5 * time.Second, RespectTTL: true, LeastTTL: 3 * time.Second, Jitter: 100 * time.Millisecond}
	for range 1000 {
		for ttl, base := range map[time.Duration]time.Duration{0: p.Interval, time.Second: p.LeastTTL, time.Minute: time.Minute} {
			if d := delay(p, ttl, 0); d < base || d >= base+p.Jitter {
				t.Fatalf("after an answer for %v: %v", ttl, d)
			}
		}
	}
	if d := delay(p, time.Minute, 3); d != p.Interval {
		t.Errorf("after a failure: %v, want the interval", d)
	}
}

func TestNamesThatAreNotWantedAnyMoreAreForgotten(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		t.Helper()
		w.set("a", 0, "192.0.2.1")
		w.set("b", 0, "192.0.2.2")
		w.Resolve([]translate.HostName{name("a", istio), name("b", istio)})
		w.pass(0)
		w.mu.Lock()
		w.took = time.Second
		w.mu.Unlock()
		w.pass(60*time.Second + time.Millisecond) // lookups are under way
		w.signalled()
		w.Resolve([]translate.HostName{name("b", istio)})
		w.pass(0)
		if got := slices.Collect(maps.Keys(w.Answers().Addresses)); !w.signalled() || !slices.Equal(got, []string{"b"}) {
			t.Errorf("answers for %q, want b", got)
		}
		if got := w.pass(5 * time.Minute); slices.Contains(got, "a true false") {
			t.Errorf("lookups %q", got)
		}
		w.Resolve(nil)
		w.pass(0)
		if got := w.pass(time.Hour); got != nil {
			t.Errorf("lookups of nothing: %q", got)
		}
	})
}

func TestAnotherFamilyIsLookedUpAtOnce(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		t.Helper()
		w.set("a", 0, "192.0.2.1")
		w.Resolve([]translate.HostName{name("a", istio)})
		w.pass(time.Second)
		w.Resolve([]translate.HostName{{Name: "a", IPv4: true, IPv6: true, Refresh: istio}})
		if got := w.pass(0); !slices.Equal(got, []string{"a true true"}) {
			t.Errorf("lookups %q", got)
		}
	})
}

func TestLookupsAtOnceAreBounded(t *testing.T) {
	bubble(t, Config{MaxInFlight: 4}, func(t *testing.T, w *world) {
		t.Helper()
		w.took = time.Second
		var names []translate.HostName
		for i := range 20 {
			names = append(names, name(strconv.Itoa(i), istio))
		}
		w.Resolve(names)
		if got := w.pass(5 * time.Second); len(got) != 20 || w.most != 4 {
			t.Errorf("%d lookups, %d at once, want 20, 4 at once", len(got), w.most)
		}
	})
}

// From the file with the servers to the answers, over real sockets.
func TestAResolverAsksRealServers(t *testing.T) {
	s := newServer(t)
	s.set("api.example.", 1, "192.0.2.1")
	r := New(Config{Servers: []string{s.address}, ResolvConf: t.TempDir() + "/none", Hosts: t.TempDir() + "/none"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.Resolve([]translate.HostName{name("api.example", istio)})
	<-r.Changed()
	if got := r.Answers().Addresses["api.example"]; !slices.Equal(got, addresses("192.0.2.1")) {
		t.Errorf("answer %v", got)
	}
	s.set("api.example.", 30, "192.0.2.2")
	<-r.Changed() // the time to live is over
	if got := r.Answers().Addresses["api.example"]; !slices.Equal(got, addresses("192.0.2.2")) {
		t.Errorf("answer %v", got)
	}
	s.fail("api.example.", dnsmessage.RCodeServerFailure)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOneNameHasTheAnswersOfEachClustersServers(t *testing.T) {
	ours, theirs := newServer(t), newServer(t)
	ours.set("api.example.", 60, "192.0.2.1")
	theirs.set("api.example.", 60, "192.0.2.2")
	c := Config{Servers: []string{ours.address}, ResolvConf: t.TempDir() + "/none", Hosts: t.TempDir() + "/none"}
	plain, own := name("api.example", istio), name("api.example", istio)
	own.Servers.Addresses = theirs.address
	got := Lookup(t.Context(), c, []translate.HostName{plain, own})
	if !slices.Equal(got.Addresses[plain.Key()], addresses("192.0.2.1")) || !slices.Equal(got.Addresses[own.Key()], addresses("192.0.2.2")) {
		t.Errorf("answers %+v", got)
	}
}

func TestLookupTriesEveryNameOnce(t *testing.T) {
	s := newServer(t)
	s.set("api.example.", 1, "192.0.2.1")
	s.fail("bad.example.", dnsmessage.RCodeRefused)
	c := Config{Servers: []string{s.address}, ResolvConf: t.TempDir() + "/none", Hosts: t.TempDir() + "/none"}
	got := Lookup(t.Context(), c, []translate.HostName{name("api.example", istio), name("bad.example", istio), name("gone.example", istio)})
	if !slices.Equal(got.Addresses["api.example"], addresses("192.0.2.1")) || got.Errors["bad.example"] == "" || !got.Answered("gone.example") {
		t.Errorf("answers %+v", got)
	}
}
