package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/dns/dnsmessage"

	"meshbridge/capture"
	capturedns "meshbridge/capture/dns"
	"meshbridge/gateway/apisixtest"
	"meshbridge/xds/xdstest"
)

// generation is a bridge that may be succeeded by another one.
type generation struct {
	*running
	ended chan error
}

func startGeneration(t *testing.T, c Config) *generation {
	t.Helper()
	b, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return runGeneration(t, b)
}

func runGeneration(t *testing.T, b *Bridge) *generation {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g := &generation{running: &running{Bridge: b}, ended: make(chan error, 1)}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		g.ended <- b.Run(ctx)
	}()
	g.stop = func() {
		cancel()
		<-finished
	}
	t.Cleanup(g.stop)
	return g
}

func (g *generation) waitEnd(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case err := <-g.ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-ctx.Done():
		t.Fatal("the predecessor goes on")
	}
}

// handsOver is a configuration with a socket for hand-overs.
func handsOver(t *testing.T, istiod *xdstest.Server) Config {
	t.Helper()
	dir := t.TempDir()
	c := testConfig(istiod)
	c.StateDir, c.Handover, c.Version = dir, filepath.Join(dir, "handover"), "test"
	return c
}

// hammer connects all the time, over HTTP and gRPC, with a new connection for each request.
type hammer struct {
	stop     func()
	attempts atomic.Int64
	mu       sync.Mutex
	failures []string // guarded by mu
}

func startHammer(t *testing.T, etcd string) *hammer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &hammer{}
	var workers sync.WaitGroup
	worker := func(name string, request func(ctx context.Context) error) {
		workers.Go(func() {
			for ctx.Err() == nil {
				// The last request of each is let finish.
				limited, done := context.WithTimeout(context.Background(), patience)
				err := request(limited)
				done()
				h.note(name, err)
			}
		})
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 2 {
		worker("HTTP", func(ctx context.Context) error {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+etcd+"/v3/kv/range", strings.NewReader(rangeBody("/apisix/")))
			if err != nil {
				return err
			}
			response, err := client.Do(r)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
				return fmt.Errorf("%s, %w", response.Status, err)
			}
			return nil
		})
	}
	worker("gRPC", func(ctx context.Context) error {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd}, Logger: nil})
		if err != nil {
			return err
		}
		defer client.Close()
		_, err = client.Get(ctx, "/apisix/routes/", clientv3.WithPrefix())
		return err
	})
	h.stop = sync.OnceFunc(func() {
		cancel()
		workers.Wait()
	})
	t.Cleanup(h.stop)
	return h
}

func (h *hammer) note(what string, err error) {
	h.attempts.Add(1)
	if err == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures = append(h.failures, what+": "+err.Error())
}

func (h *hammer) check(t *testing.T) {
	t.Helper()
	h.stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(h.failures), h.attempts.Load(), h.failures[0])
	}
}

func TestASuccessorTakesOverWithoutARefusedConnectionOrAReload(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(5, 1).Resources()...)
	config := handsOver(t, istiod)
	first := startGeneration(t, config)
	first.waitReady(t)
	// What a client wrote is kept.
	if _, err := first.client(t).Put(t.Context(), "/apisix/global_rules/mine", `{"id":"mine"}`); err != nil {
		t.Fatal(err)
	}
	before := first.objects(t)

	var watchers []*apisixtest.Client
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, version := range apisixtest.Versions() {
		w, err := apisixtest.New(version, "http://"+first.etcd(), "/apisix")
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() { _ = w.Run(ctx) })
		if err := w.WaitFor(t.Context(), func(objects map[string]string) bool { return objects["/apisix/global_rules/mine"] != "" }); err != nil {
			t.Fatal(err)
		}
		watchers = append(watchers, w)
	}
	h := startHammer(t, first.etcd())

	current := first
	for range 3 {
		last := current.store.Revision()
		next := startGeneration(t, config)
		next.waitReady(t)
		current.waitEnd(t)
		if got := next.store.Revision(); got != last {
			t.Errorf("revision %d after %d, with the same world", got, last)
		}
		if next.etcd() != current.etcd() || next.address(0) != current.address(0) || next.address(2) != current.address(2) {
			t.Errorf("%s became %s", current.etcd(), next.etcd())
		}
		current = next
	}
	if d := cmp.Diff(before, current.objects(t)); d != "" {
		t.Error(d)
	}
	// And the last of them is followed.
	istiod.Set(withEndpoint(3, 2))
	istiod.Push()
	for i, w := range watchers {
		if err := w.WaitFor(t.Context(), func(objects map[string]string) bool {
			for _, value := range objects {
				if strings.Contains(value, "10.0.3.2") {
					return true
				}
			}
			return false
		}); err != nil {
			t.Fatal(err)
		}
		if faults, reloads := w.Faults(), w.Reloads(); len(faults)+len(reloads) > 0 {
			t.Errorf("APISIX %s: faults %q, reloads %v", apisixtest.Versions()[i], faults, reloads)
		}
	}
	h.check(t)
	t.Logf("%d requests", h.attempts.Load())
}

func TestASuccessorCommitsWhatDiffersAtTheNextRevision(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(3, 1).Resources()...)
	config := handsOver(t, istiod)
	first := startGeneration(t, config)
	first.waitReady(t)
	client := first.client(t)
	last := first.store.Revision()
	watch := client.Watch(t.Context(), "/apisix/", clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithRev(last+1))
	<-watch

	// The successor is a version that translates one service otherwise: here, it is told another thing.
	other := xdstest.NewServer(t)
	resources := xdstest.Mesh(3, 1)
	resources.Endpoints[1] = xdstest.Endpoints(1, 2)
	other.Set(resources.Resources()...)
	next := config
	next.NewSource = testConfig(other).NewSource
	second := startGeneration(t, next)
	second.waitReady(t)
	first.waitEnd(t)
	response := <-watch
	if err := response.Err(); err != nil || len(response.Events) != 1 || response.Header.GetRevision() != last+1 {
		t.Fatalf("revision %d, %d events, %v; want one event at %d", response.Header.GetRevision(), len(response.Events), err, last+1)
	}
	if value := string(response.Events[0].GetKv().GetValue()); !strings.Contains(value, "10.0.1.2") {
		t.Errorf("value %s", value)
	}
}

func TestASuccessorThatFailsLeavesEverythingAsItWas(t *testing.T) {
	istiod, silent := xdstest.NewServer(t), xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(3, 1).Resources()...)
	silent.Stop()
	config := handsOver(t, istiod)
	first := startGeneration(t, config)
	first.waitReady(t)
	h := startHammer(t, first.etcd())

	// One that never hears of istiod, and is stopped.
	waiting := config
	waiting.NewSource = testConfig(silent).NewSource
	second := startGeneration(t, waiting)
	if _, err := New(t.Context(), config); err == nil || !strings.Contains(err.Error(), "is taking over already") {
		t.Errorf("a third process: %v", err)
	}
	second.stop()
	// One that asks for the state, and dies before it serves.
	failing := startFailing(t, config)
	failing.stop()

	istiod.Set(withEndpoint(1, 2))
	istiod.Push()
	eventually(t, "a change through the first process", func() bool {
		for _, value := range first.objects(t) {
			if strings.Contains(value, "10.0.1.2") {
				return true
			}
		}
		return false
	})
	if _, err := first.client(t).Put(t.Context(), "/apisix/global_rules/mine", "{}"); err != nil {
		t.Errorf("a write: %v", err)
	}
	h.check(t)
	// And the next one succeeds.
	var third *generation
	eventually(t, "a predecessor that is free", func() bool {
		b, err := New(t.Context(), config)
		if err != nil {
			return false
		}
		third = runGeneration(t, b)
		return true
	})
	third.waitReady(t)
	first.waitEnd(t)
}

// startFailing starts a successor that fails once its predecessor is frozen.
func startFailing(t *testing.T, config Config) *generation {
	t.Helper()
	var b *Bridge
	// The predecessor may not have heard yet that the one before is gone.
	eventually(t, "a successor", func() (ok bool) {
		var err error
		b, err = New(t.Context(), config)
		return err == nil
	})
	frozen := make(chan struct{})
	b.pipeline.tookOver = func() error {
		close(frozen)
		return context.Canceled
	}
	g := &generation{running: &running{Bridge: b}, ended: make(chan error, 1)}
	go func() { g.ended <- b.Run(context.Background()) }()
	<-frozen
	g.stop = func() {
		if err := <-g.ended; err == nil {
			t.Error("it did not fail")
		}
	}
	return g
}

func TestHandOverIsRefusedWhereItCannotBe(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(2, 1).Resources()...)
	config := handsOver(t, istiod)
	startGeneration(t, config).waitReady(t)
	other := config
	other.Prefix = "/other"
	if _, err := New(t.Context(), other); err == nil || !strings.Contains(err.Error(), "--prefix is /other") {
		t.Errorf("another prefix: %v", err)
	}
	child := config
	child.APISIX = &APISIXConfig{}
	if _, err := New(t.Context(), child); err == nil || !strings.Contains(err.Error(), "mode sidecar") {
		t.Errorf("with an APISIX of its own: %v", err)
	}
}

func TestASocketOfAProcessThatDiedIsReplaced(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(2, 1).Resources()...)
	config := handsOver(t, istiod)
	first := startGeneration(t, config)
	first.waitReady(t)
	first.stop()
	second := startGeneration(t, config)
	second.waitReady(t)
	if second.store.Revision() <= first.store.Revision() {
		t.Errorf("revision %d after %d", second.store.Revision(), first.store.Revision())
	}
}

// Capture's sockets go along: those for APISIX, and those of the workload's DNS.
func TestSocketsOfCaptureNeverRefuse(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(2, 1).Resources()...)
	config := handsOver(t, istiod)
	overlay, names := freePort(t), freePort(t)
	fresh := func() *CaptureConfig {
		return &CaptureConfig{
			Server:          capture.Config{Overlay: overlay},
			FirstStreamPort: 16000, LastStreamPort: 16010, Overlay: netip.MustParsePrefix("127.96.0.0/11"),
			DNS: &capturedns.Config{Addresses: []netip.AddrPort{names}},
		}
	}
	config.Capture, config.Lifecycle.StopTime = fresh(), time.Second
	current := startGeneration(t, config)
	current.waitReady(t)
	eventually(t, "the sockets", func() bool {
		c, err := net.Dial("tcp", overlay.String())
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})

	h := &hammer{}
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	for _, address := range []netip.AddrPort{overlay, names} {
		workers.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", address.String())
				if err == nil {
					_ = c.Close()
				}
				if errors.Is(err, syscall.ECONNRESET) && address == overlay {
					err = nil // nothing is behind that address of the overlay
				}
				h.note("connection to "+address.String(), err)
			}
		})
	}
	workers.Go(func() {
		for ctx.Err() == nil {
			h.note("query", query(names))
		}
	})
	h.stop = sync.OnceFunc(func() {
		cancel()
		workers.Wait()
	})
	t.Cleanup(h.stop)

	for range 2 {
		config.Capture = fresh()
		next := startGeneration(t, config)
		next.waitReady(t)
		current.waitEnd(t)
		current = next
	}
	h.check(t)
	t.Logf("%d connections and queries", h.attempts.Load())
}

// query asks a DNS server over UDP, once.
func query(server netip.AddrPort) error {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, RecursionDesired: true})
	err := errors.Join(b.StartQuestions(), b.Question(dnsmessage.Question{
		Name: dnsmessage.MustNewName("a.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
	}))
	message, finished := b.Finish()
	c, dialed := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err := errors.Join(err, finished, dialed); err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write(message); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 512))
	return err
}
