package bridge

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"meshbridge/cmd/internal/logscope"
	"meshbridge/xds/xdstest"
)

func TestTheAdminPortShowsWhatIstiodSent(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(3, 2).Resources()...)
	config := testConfig(istiod)
	config.Node, config.Istiod = xdstest.Node(), istiod.Addr()
	r := startBridge(t, config)
	if code, body := get(t, "http://"+r.address(0)+"/config_dump"); code != http.StatusOK || !strings.Contains(body, xdstest.Node().GetId()) {
		t.Errorf("config_dump: %d %s", code, body)
	}
	r.waitReady(t)
	for path, want := range map[string][]string{
		"/config_dump?include_eds": {`"dynamic_active_clusters"`, `"dynamic_listeners"`, `"dynamic_route_configs"`, `"dynamic_endpoint_configs"`, istiod.Addr()},
		"/clusters?format=json":    {`"host_statuses"`, `"HEALTHY"`},
		"/server_info":             {`"LIVE"`},
		"/stats?filter=cds":        {"cluster_manager.cds.update_success: 1\n"},
		"/stats/prometheus":        {"meshbridge_revision"},
		"/":                        {"/config_dump"},
		"/version":                 {"version"},
	} {
		code, body := get(t, "http://"+r.address(0)+path)
		if code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
		for _, part := range want {
			if !strings.Contains(body, part) {
				t.Errorf("%s: no %q in\n%s", path, part, body)
			}
		}
	}
}

func TestTheAdminPortMakesTheBridgeUnready(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(1, 1).Resources()...)
	r := startBridge(t, testConfig(istiod))
	r.waitReady(t)
	for _, step := range []struct {
		path string
		want int
	}{{"/healthcheck/fail", http.StatusServiceUnavailable}, {"/healthcheck/ok", http.StatusOK}} {
		if code, body := post(t, r.address(0), step.path, ""); code != http.StatusOK {
			t.Errorf("%s: %d %s", step.path, code, body)
		}
		if code, body := get(t, "http://"+r.address(1)+"/healthz/ready"); code != step.want {
			t.Errorf("ready after %s: %d %s", step.path, code, body)
		}
	}
}

func TestTheAdminPortEndsTheBridge(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(1, 1).Resources()...)
	b, err := New(t.Context(), testConfig(istiod))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- b.Run(context.Background()) }()
	if code, body := post(t, b.servers[0].listener.Addr().String(), "/drain_listeners", ""); code != http.StatusOK {
		t.Errorf("drain: %d %s", code, body)
	}
	if code, body := post(t, b.servers[0].listener.Addr().String(), "/quitquitquit", ""); code != http.StatusOK || body != "OK\n" {
		t.Errorf("quit: %d %s", code, body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-ctx.Done():
		t.Fatal("it goes on")
	}
}

func TestTheAdminPortChangesWhatIsLogged(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(1, 1).Resources()...)
	log := &lockedBuffer{}
	config := testConfig(istiod)
	config.Logger = slog.New(logscope.NewHandler(slog.NewTextHandler(log, logscope.Everything()), logscope.Off))
	r := startBridge(t, config)
	r.waitReady(t)
	if text := log.String(); text != "" {
		t.Errorf("logged: %s", text)
	}
	if code, body := post(t, r.address(0), "/logging?admin=info", ""); code != http.StatusOK || !strings.Contains(body, "  admin: info\n") {
		t.Errorf("logging: %d %s", code, body)
	}
	if text := log.String(); !strings.Contains(text, "scope=admin") {
		t.Errorf("logged: %s", text)
	}
}
