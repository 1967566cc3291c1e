package etcd

import (
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// leftOut are the metrics of etcd that meshbridge has not; gateway/metrics_etcd.go says why.
const leftOut = `^(` +
	`etcd_(debugging_)?(disk|snap)_.*|etcd_mvcc_db_open_read_transactions|etcd_mvcc_hash_.*|` +
	`etcd_debugging_mvcc_(db|index)_compaction_.*_milliseconds|` +
	`etcd_network_(peer_.*|known_peers|active_peers|disconnected_peers_total|server_stream_failures_total|snapshot_.*)|` +
	`etcd_server_(heartbeat_send_failures_total|learner_promote_.*|slow_apply_total|snapshot_apply_in_progress_total)|` +
	`etcd_server_(read_indexes_failed_total|slow_read_indexes_total)|` +
	`etcd_debugging_store_.*|etcd_grpc_proxy_.*|` +
	`etcd_server_(apply|range)_duration_seconds|etcd_debugging_lease_ttl_total|` +
	`etcd_server_client_requests_total|etcd_debugging_mvcc_pending_events_total|etcd_server_feature_enabled|` +
	`etcd_server_healthcheck|etcd_server_healthchecks_total|os_fd_(limit|used)|promhttp_.*` +
	`)$`

// A metric of etcd's is there with its type and labels, or on the list of those left out; none is invented
// in etcd's name.
func TestMetricsAreThoseOfEtcd(t *testing.T) {
	t.Parallel()
	etcd, meshbridge := startBoth(t)
	left := regexp.MustCompile(leftOut)
	theirs, ours := metricsOf(t, etcd), metricsOf(t, meshbridge)
	for name, kind := range theirs {
		own, ok := ours[name]
		switch {
		case left.MatchString(name):
			if ok {
				t.Errorf("%s is there and on the list of those that are not", name)
			}
		case !ok:
			t.Errorf("%s is missing", name)
		case own != kind:
			t.Errorf("%s is %s, etcd's is %s", name, own, kind)
		}
	}
	for name := range ours {
		// Of the client library and of ours.
		if _, ok := theirs[name]; !ok && !strings.HasPrefix(name, "meshbridge_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is none of etcd's", name)
		}
	}
}

// metricsOf returns the type and the labels of each metric, after some requests.
func metricsOf(t *testing.T, s server) map[string]string {
	t.Helper()
	c, ctx := s.client(t), t.Context()
	if _, err := c.Put(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	call := httpCall{name: "alarm", path: "/v3/maintenance/alarm", body: `{"action":"ACTIVATE","alarm":"NOSPACE"}`}
	if got := call.do(t, s); got.Status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	r, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	metrics := map[string]string{}
	sample := regexp.MustCompile(`^(\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? `)
	label := regexp.MustCompile(`(\w+)="`)
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(strings.TrimSpace(rest), " ")
			metrics[name] = kind
			continue
		}
		parts := sample.FindStringSubmatch(line)
		if parts == nil || metrics[parts[1]] == "" || strings.Contains(metrics[parts[1]], " ") {
			continue
		}
		var labels []string
		for _, l := range label.FindAllStringSubmatch(parts[2], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		metrics[parts[1]] += " of " + strings.Join(labels, ", ")
	}
	if len(metrics) < 50 {
		t.Fatalf("%s: %s", s.name, body)
	}
	return metrics
}
