package etcd

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// A probe hears the same of both servers, with and without alarms, by every
// method.
func TestHealthIsThatOfEtcd(t *testing.T) {
	t.Parallel()
	etcd, meshbridge := startBoth(t)
	alarm := func(action, kind string) {
		body := `{"action":"` + action + `","alarm":"` + kind + `"}`
		for _, s := range []server{etcd, meshbridge} {
			if got := (httpCall{name: "alarm", path: "/v3/maintenance/alarm", body: body}).do(t, s); got.Status != http.StatusOK {
				t.Fatalf("%s: %+v", s.name, got)
			}
		}
	}
	for _, kind := range []string{"", "NOSPACE", "CORRUPT"} {
		if kind != "" {
			alarm("ACTIVATE", kind)
		}
		for _, path := range []string{
			"/health", "/health?serializable=true", "/health?exclude=", "/health?exclude=NOSPACE", "/health?exclude=CORRUPT&exclude=NOSPACE",
			"/livez", "/livez?verbose", "/livez?verbose&exclude=serializable_read", "/livez/serializable_read", "/livez/serializable_read?verbose",
			"/readyz", "/readyz?verbose", "/readyz?verbose=0", "/readyz?exclude=data_corruption", "/readyz?exclude=data_corruption&verbose",
			"/readyz?exclude=nothing", "/readyz/data_corruption", "/readyz/data_corruption?verbose&exclude=data_corruption",
			"/readyz/linearizable_read", "/readyz/serializable_read", "/readyz/non_learner?verbose",
			"/readyz/nothing", "/livez/", "/livez/linearizable_read", "/version",
		} {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
				call := httpCall{name: kind, method: method, path: path}
				want, got := call.do(t, etcd), call.do(t, meshbridge)
				// The order of checks varies in etcd.
				slices.Sort(want.Body)
				slices.Sort(got.Body)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s %s, alarm %q (-etcd +meshbridge):\n%s", method, path, kind, diff)
				}
			}
		}
		if kind != "" {
			alarm("DEACTIVATE", kind)
		}
	}
	for _, service := range []string{"", "etcdserverpb.KV"} {
		if want, got := grpcHealth(t, etcd, service), grpcHealth(t, meshbridge, service); got != want {
			t.Errorf("gRPC health of %q: %s, etcd: %s", service, got, want)
		}
	}
}

func grpcHealth(t *testing.T, s server, service string) string {
	t.Helper()
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(r.GetStatus().String())
}
