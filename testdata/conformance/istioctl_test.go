package conformance

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"istio.io/istio/istioctl/pkg/writer/compare"
	"istio.io/istio/istioctl/pkg/writer/envoy/clusters"
	"istio.io/istio/istioctl/pkg/writer/envoy/configdump"
	bugreport "istio.io/istio/tools/bug-report/pkg/common"

	"meshbridge/testdata/conformance/harness"
)

// What istioctl asks an Envoy for, by command (istioctl/pkg/proxyconfig).
const (
	askAll       = "config_dump?include_eds=true"
	askClusters  = "config_dump?mask=dynamic_active_clusters,dynamic_warming_clusters,static_clusters"
	askListeners = "config_dump?mask=dynamic_listeners,static_listeners"
	askRoutes    = "config_dump?mask=dynamic_route_configs,static_route_configs"
	askSecrets   = "config_dump?mask=dynamic_active_secrets,dynamic_warming_secrets"
	askBootstrap = "config_dump?mask=bootstrap"
	askEndpoints = "clusters?format=json"
)

// printed returns what istioctl prints of a config dump.
func printed(t *testing.T, dump string, printer func(*configdump.ConfigWriter) error) string {
	t.Helper()
	var out bytes.Buffer
	w := &configdump.ConfigWriter{Stdout: &out}
	if err := w.Prime([]byte(dump)); err != nil {
		t.Fatalf("istioctl does not read it: %v\n%s", err, dump)
	}
	if err := printer(w); err != nil {
		t.Fatalf("istioctl does not print it: %v\n%s", err, dump)
	}
	return out.String()
}

// wantLines fails unless each of the patterns, whose spaces stand for any number of them, matches a line.
func wantLines(t *testing.T, what, text string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)^` + strings.ReplaceAll(p, " ", ` +`) + ` *$`).MatchString(text) {
			t.Errorf("%s: no line %q in\n%s", what, p, text)
		}
	}
}

func TestIstioctlPrintsWhatTheBridgeHas(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	wantLines(t, "clusters", printed(t, s.bridge.Ask(t, http.MethodGet, askClusters), func(w *configdump.ConfigWriter) error {
		return w.PrintClusterSummary(configdump.ClusterFilter{})
	}),
		`reviews\.default\.svc\.cluster\.local 9080 - outbound EDS reviews\.default`,
		`reviews\.default\.svc\.cluster\.local 9080 v2 outbound EDS reviews\.default`,
		`ratings\.default\.svc\.cluster\.local 9080 - outbound EDS`,
		`BlackHoleCluster - - - STATIC`, `PassthroughCluster - - - ORIGINAL_DST`)
	wantLines(t, "listeners", printed(t, s.bridge.Ask(t, http.MethodGet, askListeners), func(w *configdump.ConfigWriter) error {
		return w.PrintListenerSummary(configdump.ListenerFilter{Verbose: true})
	}),
		`0\.0\.0\.0 9080 Trans: raw_buffer; App: http/1\.1,h2c Route: 9080`,
		`0\.0\.0\.0 15001 ALL PassthroughCluster`,
		`0\.0\.0\.0 15006 Addr: \*:15006 Non-HTTP/Non-TCP`)
	wantLines(t, "routes", printed(t, s.bridge.Ask(t, http.MethodGet, askRoutes), func(w *configdump.ConfigWriter) error {
		return w.PrintRouteSummary(configdump.RouteFilter{Verbose: true})
	}),
		`9080 reviews\.default\.svc\.cluster\.local:9080 reviews\.default\.svc\.cluster\.local\., reviews \+ 2 more\.\.\. /\* reviews\.default`,
		`9080 ratings\.default\.svc\.cluster\.local:9080 ratings\.default\.svc\.cluster\.local\., ratings \+ 2 more\.\.\. /\*`,
		`InboundPassthroughCluster inbound\|http\|0 \* /\*`)
	wantLines(t, "bootstrap", printed(t, s.bridge.Ask(t, http.MethodGet, askBootstrap), (*configdump.ConfigWriter).PrintBootstrapSummary),
		`Istio Version: 1\.31\.0`, `Envoy Version: .*apisix/.*`)

	all := s.bridge.Ask(t, http.MethodGet, askAll)
	wantLines(t, "all", printed(t, all, func(w *configdump.ConfigWriter) error {
		return w.PrintFullSummary(configdump.ClusterFilter{}, configdump.ListenerFilter{}, configdump.RouteFilter{}, configdump.EndpointFilter{}, true)
	}), `No active or warming secrets found\.`, `127\.0\.1\.11:9080 HEALTHY .* outbound\|9080\|v1\|reviews\.default\.svc\.cluster\.local`)
	printed(t, all, (*configdump.ConfigWriter).PrintEcdsSummary)

	var out bytes.Buffer
	w := &clusters.ConfigWriter{Stdout: &out}
	if err := w.Prime([]byte(s.bridge.Ask(t, http.MethodGet, askEndpoints))); err != nil {
		t.Fatal(err)
	}
	if err := w.PrintEndpointsSummary(clusters.EndpointFilter{Status: "healthy"}); err != nil {
		t.Fatal(err)
	}
	wantLines(t, "endpoints", out.String(),
		`127\.0\.1\.11:9080 HEALTHY OK outbound\|9080\|\|reviews\.default\.svc\.cluster\.local`,
		`127\.0\.1\.12:9080 HEALTHY OK outbound\|9080\|v2\|reviews\.default\.svc\.cluster\.local`)
}

// waitInSync waits until istioctl's comparison of istiod's dump and the bridge's finds no difference.
func (s *scenario) waitInSync(t *testing.T) {
	t.Helper()
	harness.Eventually(t, "proxy-status says that all match", func(ctx context.Context) error {
		istiod, err := s.istiod.Debug(ctx, "config_dump?proxyID=client.default")
		if err != nil {
			return err
		}
		var out bytes.Buffer
		c, err := compare.NewComparator(&out, map[string][]byte{"istiod": []byte(istiod)}, []byte(s.bridge.Ask(t, http.MethodGet, "config_dump")))
		if err != nil {
			return err
		}
		if err := c.Diff(); err != nil {
			return err
		}
		for _, what := range []string{"Clusters Match", "Listeners Match", "Routes Match"} {
			if !strings.Contains(out.String(), what) {
				return errors.New(out.String())
			}
		}
		return nil
	})
}

func TestProxyStatusFindsTheBridgeInSync(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	s.waitInSync(t)
	s.manifests.Replace(t, "reviews-routing.yaml", "weight: 90", "weight: 70")
	s.manifests.Replace(t, "reviews-routing.yaml", "weight: 10", "weight: 30")
	harness.Eventually(t, "the new weight in the dump", func(context.Context) error {
		if !strings.Contains(s.bridge.Ask(t, http.MethodGet, askRoutes), `"weight": 70`) {
			return errors.New("not there")
		}
		return nil
	})
	s.waitInSync(t)
}

func TestIstioctlPrintsTheWorkloadsCertificate(t *testing.T) {
	t.Parallel()
	istiod, root := secureIstiod(t)
	bridge := harness.StartBridge(t, binaries.Meshbridge, "grpcs://"+istiod.Secure,
		"--xds-token-file="+writeFile(t, filepath.Join(t.TempDir(), "token"), goodToken), "--xds-root-cert="+root,
		"--xds-server-name=istiod.istio-system.svc", `--node-metadata={"SERVICE_ACCOUNT":"client"}`,
		"--profile=mesh", "--capture-outbound=off", "--capture-inbound=off", "--capture-dns=off", "--capture-overlay="+freeAddress(t))
	bridge.WaitLog(t, "workload identity is current", func(harness.LogEntry) bool { return true })
	dump := bridge.Ask(t, http.MethodGet, askSecrets)
	wantLines(t, "secrets", printed(t, dump, (*configdump.ConfigWriter).PrintSecretSummary),
		`default Cert Chain ACTIVE true [0-9a-f]+ \S+ \S+( cluster\.local)?`, `ROOTCA CA ACTIVE true [0-9a-f]+ \S+ \S+.*`)
	for _, text := range []string{dump, bridge.Ask(t, http.MethodGet, "certs")} {
		if strings.Contains(text, "PRIVATE KEY") || strings.Contains(text, "LS0tLS1CRUdJTiBQUklWQVRF") || strings.Contains(text, "LS0tLS1CRUdJTiBFQyBQUklWQVRF") {
			t.Errorf("a private key is shown:\n%s", text)
		}
	}
	if certs := bridge.Ask(t, http.MethodGet, "certs"); !strings.Contains(certs, clientID) {
		t.Errorf("certs: no %s in\n%s", clientID, certs)
	}
}

func TestIstioctlPrintsTheSecretsOfAGateway(t *testing.T) {
	t.Parallel()
	bridge := startGateway(t, harness.CopyManifests(t, credentials))
	bridge.WaitReady(t)
	wantLines(t, "secrets", printed(t, bridge.Ask(t, http.MethodGet, askSecrets), (*configdump.ConfigWriter).PrintSecretSummary),
		`kubernetes://shop Cert Chain ACTIVE (true|false) [0-9a-f]+ \S+ \S+.*`)
}

// istioctl refuses to set the level of a logger whose name is not in the list.
func TestIstioctlSetsLogLevels(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	if list := s.bridge.Ask(t, http.MethodPost, "logging"); !strings.Contains(list, "  xds: debug\n") {
		t.Errorf("levels:\n%s", list)
	}
	s.bridge.Ask(t, http.MethodPost, "logging?level=warning")
	list := s.bridge.Ask(t, http.MethodPost, "logging?xds=trace")
	wantLines(t, "levels", list, ` xds: trace`, ` bridge: warning`)
}

func TestABugReportGetsEverythingItAsksFor(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	paths := bugreport.ProxyDebugURLs("")
	if len(paths) == 0 {
		t.Fatal("istioctl asks for nothing")
	}
	for _, path := range append(slices.Clone(paths), "stats", "stats?format=json", "clusters", "ready") {
		if body := s.bridge.Ask(t, http.MethodGet, path); body == "" {
			t.Errorf("/%s is empty", path)
		}
	}
}

// freeAddress is an address that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
