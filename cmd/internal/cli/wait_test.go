package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func TestWaitReturnsOnceTheBridgeIsReady(t *testing.T) {
	for _, spelling := range [][]string{
		{"--timeout", "30s", "--period", "1ms"},
		{"--timeoutSeconds", "30", "--periodMillis=1", "--requestTimeoutMillis", "5000"},
	} {
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) < 3 || r.URL.Path != "/healthz/ready" {
				http.Error(w, "not yet", http.StatusServiceUnavailable)
			}
		}))
		defer server.Close()
		code, out, errs := command(t, nil, append([]string{"wait", "--url", server.URL + "/healthz/ready"}, spelling...)...)
		if code != exitOK || asked.Load() != 3 || out != "" {
			t.Errorf("%v: exit code %d after %d requests, stdout %q: %s", spelling, code, asked.Load(), out, errs)
		}
	}
}

func TestWaitSaysWhatTheLastAnswerWas(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no configuration", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	closed := httptest.NewServer(nil)
	closed.Close()
	for url, want := range map[string]string{server.URL: "HTTP 503: no configuration", closed.URL: "refused"} {
		code, _, errs := command(t, nil, "wait", "--url", url, "--timeout", "20ms", "--period", "1ms")
		if code != exitError || !strings.Contains(errs, want) || !strings.Contains(errs, "not ready within 20ms") {
			t.Errorf("exit code %d, stderr %q, want %q in it", code, errs, want)
		}
	}
	for _, wrong := range [][]string{{"--timeout", "0s"}, {"--periodMillis", "soon"}, {"now"}} {
		if code, _, errs := command(t, nil, append([]string{"wait", "--url", server.URL}, wrong...)...); code != exitUsage {
			t.Errorf("%v: exit code %d: %s", wrong, code, errs)
		}
	}
}
