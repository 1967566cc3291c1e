package bridge

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	capturedns "meshbridge/capture/dns"
	"meshbridge/cmd/internal/accesslog"
	"meshbridge/cmd/internal/dns"
	"meshbridge/identity"
	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

var update = flag.Bool("update", false, "rewrite docs/metrics.md")

// stable are the metrics whose names, labels and meaning do not change within a major version. Others may:
// they tell of how things are done.
func stable() []string {
	return []string{
		"meshbridge_apisix_revision_lag", "meshbridge_build_info", "meshbridge_certificate_expiry_timestamp_seconds",
		"meshbridge_commits_total", "meshbridge_diagnostics", "meshbridge_last_update_timestamp_seconds",
		"meshbridge_merged_scrape_failures_total", "meshbridge_push_duration_seconds", "meshbridge_rejected_resources",
		"meshbridge_revision", "meshbridge_startup_duration_seconds", "meshbridge_store_compact_revision",
		"meshbridge_store_events_total", "meshbridge_store_keys", "meshbridge_store_watchers", "meshbridge_translate_objects",
		"meshbridge_translation_duration_seconds", "meshbridge_updates_total", "meshbridge_world_stale",
		"meshbridge_xds_connected", "meshbridge_xds_connection_terminations_total", "meshbridge_xds_last_push_timestamp_seconds",
		"meshbridge_xds_last_update_timestamp_seconds", "meshbridge_xds_pushes_total", "meshbridge_xds_reconnects_total",
		"meshbridge_xds_rejects_total", "meshbridge_xds_resources", "meshbridge_xds_token_expiry_timestamp_seconds",
		"meshbridge_identity_expiry_timestamp_seconds", "meshbridge_identity_failures_total", "meshbridge_identity_renewals_total",
		"meshbridge_gateway_requests_total", "meshbridge_gateway_watchers", "meshbridge_capture_connections",
	}
}

// bounded are the labels that the bridge's own metrics may have: each has few values, none of which is the
// name of a resource.
func bounded() []string {
	return []string{
		"answer", "code", "direction", "file", "go_version", "kind", "method", "op", "outcome", "reason", "result", "resumed", "revision", "severity",
		"source", "state", "towards", "transport", "type", "version", "why",
	}
}

// description is what a registry knows of a metric.
type description struct {
	name, help string
	labels     []string
}

var descriptionText = regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"),(?: unit: "[^"]*",)? constLabels: \{(.*?)\}, variableLabels: \{(.*)\}\}$`)

// describe returns what the bridge registers with everything that it has.
func describe(t *testing.T) []description {
	t.Helper()
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(1, 1).Resources()...)
	config := testConfig(istiod)
	config.DNS, config.TokenFile, config.StateDir = &dns.Config{}, "token", t.TempDir()
	config.AccessLogs = &accesslog.Config{}
	config.Capture = &CaptureConfig{
		FirstStreamPort: 16000, LastStreamPort: 16001, Overlay: netip.MustParsePrefix("127.96.0.0/11"),
		DNS: &capturedns.Config{},
		NewIdentity: func(r prometheus.Registerer, log *slog.Logger) (identity.Source, error) {
			return identity.Files(identity.FilesConfig{Dir: t.TempDir(), Registerer: r, Logger: log})
		},
	}
	config.NewSource = func(r prometheus.Registerer) (xds.Source, error) {
		return xds.New(xds.Config{Address: istiod.Addr(), Node: xdstest.Node(), Registerer: r, NameTable: true})
	}
	b := startBridge(t, keepsLastGood(config, filepath.Join(t.TempDir(), "world")))
	all := make(chan *prometheus.Desc)
	go func() {
		defer close(all)
		b.registry.Describe(all)
	}()
	known := map[string]description{}
	for d := range all {
		m := descriptionText.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("what is %s?", d)
		}
		var found description
		for i, to := range []*string{&found.name, &found.help} {
			if _, err := fmt.Sscanf(m[i+1], "%q", to); err != nil {
				t.Fatal(err)
			}
		}
		for label := range strings.SplitSeq(m[3]+","+m[4], ",") {
			if label, _, _ = strings.Cut(label, "="); label != "" {
				found.labels = append(found.labels, label)
			}
		}
		slices.Sort(found.labels)
		known[found.name] = found
	}
	return slices.SortedFunc(maps.Values(known), func(a, b description) int { return strings.Compare(a.name, b.name) })
}

func TestLabelsNeverHoldTheNamesOfResources(t *testing.T) {
	for _, d := range describe(t) {
		if !strings.HasPrefix(d.name, "meshbridge_") {
			continue
		}
		for _, label := range d.labels {
			if !slices.Contains(bounded(), label) {
				t.Errorf("%s has the label %s: is the number of its values bounded, whatever the mesh has?", d.name, label)
			}
		}
	}
}

func TestMetricsAreDocumented(t *testing.T) {
	all := describe(t)
	names := map[string]bool{}
	for _, d := range all {
		names[d.name] = true
	}
	for _, name := range stable() {
		if !names[name] {
			t.Errorf("the stable metric %s is gone", name)
		}
	}
	var page strings.Builder
	page.WriteString(metricsIntroduction)
	table := func(title, prefix string) {
		page.WriteString("\n## " + title + "\n\n| metric | labels | what | |\n|---|---|---|---|\n")
		for _, d := range all {
			if !strings.HasPrefix(d.name, prefix) {
				continue
			}
			promise := ""
			if slices.Contains(stable(), d.name) {
				promise = "stable"
			}
			fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", d.name, strings.Join(d.labels, ", "), strings.ReplaceAll(d.help, "|", `\|`), promise)
		}
	}
	table("The bridge's", "meshbridge_")
	table("As etcd has them", "etcd_")
	table("Calls of the etcd port", "grpc_server_")

	path := filepath.Join("..", "..", "..", "docs", "metrics.md")
	if *update {
		if err := os.WriteFile(path, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), page.String()); diff != "" {
		t.Errorf("docs/metrics.md differs (-want +got); go test ./cmd/internal/bridge -run Documented -update rewrites it:\n%s", diff)
	}
}

const metricsIntroduction = `# Metrics

Generated from the program by ` + "`go test ./cmd/internal/bridge -run Documented -update`" + `.

Port 15020 has them: ` + "`/metrics`" + ` the bridge's alone, ` + "`/stats/prometheus`" + ` with those of APISIX and of the application behind them. There,
metrics that any program has (` + "`go_*`, `process_*`, `grpc_*`, `etcd_*`" + `) have the prefix ` + "`meshbridge_`" + ` where they are the bridge's.

*stable*: name, labels and meaning remain within a major version. Others tell of how things are done, and change with it.
Labels never hold names of resources; what is at fault is in ` + "`/diagnostics`" + ` and the log. Responses that were accepted are
` + "`meshbridge_xds_pushes_total` without `meshbridge_xds_rejects_total`" + `. Besides these there are Go's usual ` + "`go_*` and `process_*`" + `.
`
