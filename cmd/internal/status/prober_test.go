package status

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

func probes(t *testing.T, text string) Probes {
	t.Helper()
	all, err := ParseProbes(text)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What the application sees of a probe, and what becomes of its answer, is what pilot-agent and the kubelet
// make of them.
func TestProbesOverHTTP(t *testing.T) {
	var seen *http.Request
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		seen = r
		_, _ = io.WriteString(w, "fine")
	})
	mux.HandleFunc("/teapot", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.Handle("/moved", http.RedirectHandler("/teapot", http.StatusFound))
	mux.Handle("/elsewhere", http.RedirectHandler("http://192.0.2.1/", http.StatusFound))
	mux.Handle("/circle", http.RedirectHandler("/circle", http.StatusFound))
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 1<<20)) })
	mux.HandleFunc("/hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	app := httptest.NewServer(mux)
	t.Cleanup(app.Close)
	number := portNumber(t, app.URL)

	var texts []string
	paths := map[string]string{
		"ok": "ok", "teapot": "/teapot", "broken": "/broken", "moved": "/moved", "elsewhere": "/elsewhere",
		"circle": "/circle", "large": "/large", "hangs": "/hangs",
	}
	for name, path := range paths {
		texts = append(texts, fmt.Sprintf(`"/app-health/%s/readyz": {"httpGet": {"path": %q, "port": %s}, "timeoutSeconds": 1}`, name, path, number))
	}
	p := serve(t, Config{Probes: probes(t, "{"+strings.Join(texts, ",")+"}")})

	for name, want := range map[string]int{
		"ok": 200, "teapot": 418, "broken": 503, "moved": 418, "elsewhere": 200, "circle": 500, "large": 200, "hangs": 500, "other": 400,
	} {
		if code, body := p.get("/app-health/" + name + "/readyz"); code != want {
			t.Errorf("%s: %d %s, want %d", name, code, body, want)
		}
	}
	if _, body := p.get("/app-health/large/readyz"); len(body) != maxProbeBody {
		t.Errorf("%d bytes of a large answer", len(body))
	}
	ours := portNumber(t, p.URL)
	for _, c := range []struct{ host, want string }{
		{"127.0.0.1:" + ours, "127.0.0.1:" + number}, // what a kubelet sends by itself
		{"example.com", "example.com"},               // what a probe says
		{"example.com:8443", "example.com:8443"},
		{"[fd00::1]:" + ours, "[fd00::1]:" + number},
	} {
		code, body := p.get("/app-health/ok/readyz", "Host", c.host, "X-Custom", "a", "User-Agent", "kube-probe/1.33")
		if code != http.StatusOK || body != "fine" {
			t.Errorf("%d %q", code, body)
		}
		if seen.Host != c.want || seen.Header.Get("X-Custom") != "a" || seen.Header.Get("User-Agent") != "kube-probe/1.33" || seen.Method != http.MethodGet {
			t.Errorf("for %s, the application saw %s of %s with %v", c.host, seen.Method, seen.Host, seen.Header)
		}
		if from := seen.RemoteAddr; !strings.HasPrefix(from, "127.0.0.6:") {
			t.Errorf("the probe comes from %s: iptables would send it to capture", from)
		}
	}
}

func TestProbesOverTLSDoNotVerify(t *testing.T) {
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}))
	app.EnableHTTP2 = true
	app.StartTLS()
	t.Cleanup(app.Close)
	p := serve(t, Config{Probes: probes(t,
		`{"/app-health/app/livez": {"httpGet": {"scheme": "HTTPS", "port": `+portNumber(t, app.URL)+`}, "timeoutSeconds": 5}}`)})
	if code, body := p.get("/app-health/app/livez"); code != http.StatusOK || body != "HTTP/2.0" {
		t.Errorf("%d %s", code, body)
	}
}

func TestProbesOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	number := portOf(t, l.Addr().String())
	p := serve(t, Config{Probes: probes(t, fmt.Sprintf(`{"/app-lifecycle/app/prestopz": {"tcpSocket": {"port": %d}}}`, number))})
	if code, body := p.get("/app-lifecycle/app/prestopz"); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
	_ = l.Close()
	for range 3 {
		if code, _ := p.get("/app-lifecycle/app/prestopz"); code != http.StatusInternalServerError {
			t.Errorf("nobody listens: %d", code)
		}
	}
	if text := p.log.String(); strings.Count(text, "probe fails") != 1 {
		t.Errorf("what goes on failing is logged again: %s", text)
	}
}

func TestProbesOverGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	agent := ""
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if md, ok := metadata.FromIncomingContext(ctx); ok {
			agent = strings.Join(md.Get("user-agent"), " ")
		}
		return next(ctx, request)
	}))
	states := health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, states)
	states.SetServingStatus("named", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	p := serve(t, Config{Probes: probes(t, fmt.Sprintf(`{
		"/app-health/app/livez": {"grpc": {"port": %[1]d, "service": null}, "timeoutSeconds": 5},
		"/app-health/app/readyz": {"grpc": {"port": %[1]d, "service": "named"}, "timeoutSeconds": 5},
		"/app-health/app/startupz": {"grpc": {"port": %[1]d, "service": "unknown"}, "timeoutSeconds": 5}}`, portOf(t, l.Addr().String())))})
	for name, want := range map[string]int{"livez": 200, "readyz": 500, "startupz": 500} {
		if code, body := p.get("/app-health/app/"+name, "User-Agent", "kube-probe/1.33"); code != want {
			t.Errorf("%s: %d %s, want %d", name, code, body, want)
		}
	}
	if !strings.HasPrefix(agent, "kube-probe/1.33") {
		t.Errorf("the application saw %q", agent)
	}
}

func TestProbesThatCannotBeServedAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{`: "unexpected end",
		`{"/app-health/a/b/livez": {"tcpSocket": {"port": 1}}}`:                    "CONTAINER",
		`{"/app-health/a/prestopz": {"tcpSocket": {"port": 1}}}`:                   "CONTAINER",
		`{"/app-health/a/livez": {}}`:                                              "has 0 of",
		`{"/app-health/a/livez": null}`:                                            "has 0 of",
		`{"/app-health/a/livez": {"tcpSocket": {"port": 1}, "grpc": {"port": 1}}}`: "has 2 of",
		`{"/app-health/a/livez": {"tcpSocket": {"port": "http"}}}`:                 "want a number",
		`{"/app-health/a/livez": {"tcpSocket": {"port": 70000}}}`:                  "want a number",
		`{"/app-health/a/livez": {"tcpSocket": {}}}`:                               "has no port",
		`{"/app-health/a/livez": {"httpGet": {"port": 1, "scheme": "FTP"}}}`:       "FTP",
		`{"/app-health/a/livez": {"httpGet": {"port": 1}, "timeoutSeconds": -1}}`:  "negative",
	} {
		if _, err := ParseProbes(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if all, err := ParseProbes(""); err != nil || all != nil {
		t.Errorf("%v %v", all, err)
	}
}

func FuzzParseProbes(f *testing.F) {
	f.Add(`{"/app-health/a/livez": {"httpGet": {"port": 1, "path": "x"}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ParseProbes(text)
		if err != nil {
			return
		}
		for path, p := range all {
			if p.port() == 0 || !strings.HasPrefix(path, "/app-") {
				t.Errorf("%q is accepted with port %d", path, p.port())
			}
		}
	})
}
