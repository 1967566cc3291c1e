package status

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestDrainAndQuitAreForThisHostAlone(t *testing.T) {
	p := serve(t, Config{})
	for _, path := range []string{"/drain", "/quitquitquit"} {
		if code, header, _ := p.request(http.MethodGet, path); code != http.StatusMethodNotAllowed || header.Get("Allow") != http.MethodPost {
			t.Errorf("GET %s: %d %v", path, code, header)
		}
		// As a page of another site would have a browser on this host do it.
		if code, _, _ := p.request(http.MethodPost, path, "Sec-Fetch-Site", "cross-site"); code != http.StatusForbidden {
			t.Errorf("from another site: %d", code)
		}
		remote := httptest.NewRequest(http.MethodPost, path, nil)
		remote.RemoteAddr = "10.0.0.7:1234"
		answer := httptest.NewRecorder()
		p.Config.Handler.ServeHTTP(answer, remote)
		if answer.Code != http.StatusForbidden {
			t.Errorf("from another host: %d", answer.Code)
		}
	}
	if p.drained+p.ended != 0 {
		t.Errorf("drained %d, ended %d", p.drained, p.ended)
	}
	for path, n := range map[string]*int{"/drain": &p.drained, "/quitquitquit": &p.ended} {
		code, _, body := p.request(http.MethodPost, path)
		p.mu.Lock()
		if code != http.StatusOK || body != "OK" || *n != 1 {
			t.Errorf("POST %s: %d %q, done %d times", path, code, body, *n)
		}
		p.mu.Unlock()
	}
}

func TestReadinessIsThatOfTheConditions(t *testing.T) {
	p := serve(t, Config{})
	for _, c := range []struct {
		unready error
		status  int
		body    string
	}{
		{errors.New("APISIX is slow"), 503, "not ready: APISIX is slow\n"},
		{nil, 200, "ready\n"},
		{nil, 200, "ready\n"},
		{errors.New("draining"), 503, "not ready: draining\n"},
	} {
		p.mu.Lock()
		p.unready = c.unready
		p.mu.Unlock()
		if code, body := p.get("/healthz/ready"); code != c.status || body != c.body {
			t.Errorf("%v: %d %q", c.unready, code, body)
		}
	}
	if n := strings.Count(p.log.String(), "told who asked"); n != 3 {
		t.Errorf("%d changes are logged: %s", n, p.log)
	}
}

func TestMetricsMayBeForThisHostAlone(t *testing.T) {
	p := serve(t, Config{MetricsLocalhost: true})
	for _, path := range []string{"/metrics", "/stats/prometheus"} {
		if code, _ := p.get(path); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
		remote := httptest.NewRequest(http.MethodGet, path, nil)
		remote.RemoteAddr = "10.0.0.7:1234"
		answer := httptest.NewRecorder()
		p.Config.Handler.ServeHTTP(answer, remote)
		if answer.Code != http.StatusForbidden {
			t.Errorf("%s from another host: %d", path, answer.Code)
		}
	}
}
