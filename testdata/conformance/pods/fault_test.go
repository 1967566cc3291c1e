package pods

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// ok tells whether the application called name has answered, over HTTP or TCP.
func ok(name string) func(answer) bool {
	return func(a answer) bool {
		return a.Error == "" && (a.Body == name+" hello" ||
			a.Status == http.StatusOK && strings.Contains(a.Body, fmt.Sprintf(`"Name":%q`, name)))
	}
}

func failed(a answer) bool { return a.Error != "" || a.Status >= 500 }

func TestAPISIXEndsAndComesBack(t *testing.T) {
	w := newWorld(t, "")
	whole := t // by which the programs that are started again outlive their part
	for name, s := range map[string]*sidecar{"of the server": w.server, "of the client": w.client} {
		t.Run(name, func(t *testing.T) {
			watches := []*watch{
				w.client.watch(t, "http", "--url", "http://server/", "--address", "10.96.0.10:80"),
				w.client.watch(t, "tcp", "--address", "10.96.0.10:9000", "--send", "hello"),
			}
			held := w.client.watch(t, "tcp", "--address", "10.96.0.10:9000", "--send", "hello", "--hold")
			held.until(t, 0, "an answer", func(a answer) bool { return a.Body != "" })
			for _, watch := range watches {
				watch.until(t, 0, "an answer", ok("server"))
			}
			s.apisix.Stop()
			for _, watch := range watches {
				watch.until(t, len(watch.answers(t)), "an error", failed)
			}
			<-held.process.Ended()
			if all := held.answers(t); !failed(all[len(all)-1]) {
				t.Errorf("the connection that was open ended with %+v", all[len(all)-1])
			}
			s.startAPISIX(whole)
			for _, watch := range watches {
				n := watch.until(t, len(watch.answers(t)), "an answer", ok("server"))
				watch.more(t, 10)
				for _, a := range watch.answers(t)[n:] {
					if !ok("server")(a) {
						t.Errorf("after it came back: %+v", a)
					}
				}
			}
		})
	}
}

func TestTrafficGoesOnWithoutIstiod(t *testing.T) {
	w := newWorld(t, "")
	watches := []*watch{
		w.client.watch(t, "http", "--url", "http://server/", "--address", "10.96.0.10:80"),
		w.client.watch(t, "http", "--url", "http://server/", "--address", "10.96.0.10:81"),
		w.client.watch(t, "tcp", "--address", "10.96.0.10:9002", "--send", "hello"),
		w.legacy.watch(t, "tcp", "--address", w.server.address+":9000", "--send", "hello"),
	}
	some := func() {
		for _, watch := range watches {
			watch.more(t, 10)
		}
	}
	some()
	w.istiod.Kill()
	w.client.bridge.WaitLine(t, "the end of the stream", func(line string) bool { return strings.Contains(line, "connection refused") })
	some()
	w.startIstiod(t)
	w.configure(t, "more.yaml", service("late", "10.96.0.20", []string{"http:80:8080"}, w.server.pod))
	// The new service arrives, so the bridge follows istiod again.
	harness.Eventually(t, "a new service", func(ctx context.Context) error {
		a, err := w.client.call(ctx, appUser, "http", "--url", "http://late/", "--address", "10.96.0.20:80", "--timeout", "1s")
		if err == nil && !ok("server")(a) {
			err = fmt.Errorf("%+v", a)
		}
		return err
	})
	some()
	for _, watch := range watches {
		for _, a := range watch.answers(t) {
			if !ok("server")(a) {
				t.Errorf("%+v", a)
			}
		}
	}
}

func TestWithoutAnIdentityMeshTLSIsRefused(t *testing.T) {
	n := newNetwork(t)
	fresh := n.pod(t, "gateway")
	w := newWorldIn(t, n, workload(fresh, meshTLS)+service("fresh", "10.96.0.20", []string{"http:80:8080"}, fresh))
	serve(t, fresh)
	s := w.inject(t, fresh, "--identity", "files:"+w.path("config")) // where none is
	t.Run("to it", func(t *testing.T) {
		if a := w.client.get(t, "http://fresh/", "--address", "10.96.0.20:80"); !failed(a) {
			t.Errorf("%+v", a)
		}
		s.bridge.WaitLine(t, "the reason", func(line string) bool { return strings.Contains(line, "missing_credential") })
	})
	t.Run("from it", func(t *testing.T) {
		if a := s.get(t, "http://server/", "--address", "10.96.0.10:81"); !failed(a) {
			t.Errorf("%+v", a)
		}
		if a := s.send(t, "10.96.0.10:9002", "hello"); a.Body != "" {
			t.Errorf("%+v", a)
		}
	})
	t.Run("plain text goes on", func(t *testing.T) {
		if r := s.get(t, "http://legacy/", "--address", "10.96.0.11:80").request(t); r.Name != "legacy" {
			t.Errorf("the application saw %+v", r)
		}
		if r := w.legacy.get(t, "http://fresh/", "--address", s.address+":8080").request(t); r.Name != "gateway" {
			t.Errorf("the application saw %+v", r)
		}
	})
}

// values returns those of the answer to a range, in the order of their keys.
func values(t testing.TB, body string) string {
	t.Helper()
	var r struct {
		KVs []struct {
			Key, Value []byte
		}
	}
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, kv := range r.KVs {
		fmt.Fprintf(&all, "%s %s\n", kv.Key, kv.Value)
	}
	return all.String()
}

// numbered returns what APISIX is told that has numbers only capture and APISIX know.
func (s *sidecar) numbered(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	encode := func(key string) string { return base64.StdEncoding.EncodeToString([]byte(harness.Prefix + key)) }
	var all strings.Builder
	for _, directory := range []string{"stream_routes", "upstreams"} {
		a, err := s.call(ctx, proxyUser, "http", "--url", "http://127.0.0.1:2379/v3/kv/range", "--method", "POST",
			"--data", fmt.Sprintf(`{"key": %q, "range_end": %q}`, encode(directory+"/"), encode(directory+"0")))
		if err != nil || a.Status != http.StatusOK {
			t.Fatalf("%v %+v", err, a)
		}
		all.WriteString(values(t, a.Body))
	}
	return all.String()
}

func TestBridgeIsReplacedWhileAPISIXLives(t *testing.T) {
	for _, how := range []string{"killed", "stopped"} {
		t.Run(how, func(t *testing.T) { replaceBridge(t, how == "killed") })
	}
}

// replaceBridge replaces the client's bridge while clients of two workloads call without a pause.
func replaceBridge(t *testing.T, kill bool) {
	n := newNetwork(t)
	w := newWorldIn(t, n, service("between", "10.96.0.20", []string{"http:80:8080", "tcp-a:9000:9000", "tcp-b:9002:9002"}, &pod{name: "legacy", address: "10.77.1.3"}))
	state := w.path("state")
	w.write(t, "client.token", "client")
	command(t, "install", "-d", "-o", proxyUser, state)
	w.client.args = append(w.client.args, "--state-dir", state, "--apisix-stop-time", "1s")
	restart := func() {
		if kill {
			w.client.bridge.Kill()
		} else {
			w.client.bridge.Stop()
		}
		w.client.startBridge(t)
		w.client.waitReady(t)
	}
	restart()
	type flow struct {
		name  string
		watch *watch
	}
	var flows []flow
	for name, ip := range map[string]string{"server": "10.96.0.10", "legacy": "10.96.0.11"} {
		for _, port := range []string{"9000", "9002"} {
			flows = append(flows, flow{name, w.client.watch(t, "tcp", "--address", ip+":"+port, "--send", "hello", "--timeout", "2s")})
		}
		flows = append(flows, flow{name, w.client.watch(t, "http", "--url", "http://"+name+"/", "--address", ip+":80", "--timeout", "2s")})
	}
	for _, f := range flows {
		f.watch.until(t, 0, "an answer", ok(f.name))
	}
	before := w.client.numbered(t)
	for range 2 {
		restart()
		for _, f := range flows {
			f.watch.until(t, len(f.watch.answers(t)), "an answer", ok(f.name))
		}
		if after := w.client.numbered(t); after != before {
			t.Errorf("other numbers, before:\n%s\nafter:\n%s", before, after)
		}
	}
	for _, f := range flows {
		n := 0
		for _, a := range f.watch.answers(t) {
			switch {
			case ok(f.name)(a):
				n++
			case a.Error == "" && a.Status < 400 && !strings.HasPrefix(f.name+" hello", a.Body):
				// Killed, it may cut an answer short.
				t.Errorf("for %s: %+v", f.name, a)
			}
		}
		if n == 0 {
			t.Errorf("no answer for %s", f.name)
		}
	}
}

func TestRequestsInFlightAreDrained(t *testing.T) {
	w := newWorld(t, "")
	w.server.args = append(w.server.args, "--drain-time", "2s", "--apisix-stop-time", "20s")
	w.server.bridge.Stop()
	w.server.startBridge(t)
	w.server.waitReady(t)
	slow := w.legacy.start(t, appUser, programs.echo, "http", "--url", "http://server/?wait=6s", "--address", w.server.address+":8080")
	harness.Eventually(t, "the request's arrival", func(context.Context) error {
		if w.server.metric(t, `meshbridge_capture_connections{direction="inbound"}`) < 1 {
			return errors.New("no connection")
		}
		return nil
	})
	stopped := make(chan struct{})
	bridge := w.server.bridge
	go func() {
		defer close(stopped)
		bridge.Stop()
	}()
	harness.Eventually(t, "draining", func(ctx context.Context) error {
		a, err := w.server.call(ctx, proxyUser, "http", "--url", "http://127.0.0.1:15021/healthz/ready")
		if err == nil && a.Status != http.StatusServiceUnavailable {
			err = fmt.Errorf("%+v", a)
		}
		return err
	})
	// Others learn late that nothing is to be sent there.
	if a := w.legacy.get(t, "http://server/", "--address", w.server.address+":8080", "--timeout", "1s"); !ok("server")(a) {
		t.Errorf("while draining: %+v", a)
	}
	harness.Eventually(t, "refused connections", func(ctx context.Context) error {
		a, err := w.legacy.call(ctx, appUser, "http", "--url", "http://server/", "--address", w.server.address+":8080", "--timeout", "1s")
		if err == nil && a.Error == "" {
			err = fmt.Errorf("%+v", a)
		}
		return err
	})
	select {
	case <-slow.Ended():
		t.Error("the slow request ended before new ones were refused")
	default:
	}
	<-slow.Ended()
	if a := (&watch{slow}).answers(t); len(a) != 1 || !ok("server")(a[0]) {
		t.Errorf("the request in flight: %+v", a)
	}
	<-stopped
	if code := bridge.ExitCode(); code != 0 {
		t.Errorf("the bridge ended with %d", code)
	}
}
