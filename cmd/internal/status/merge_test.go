package status

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	apisixText = "# HELP apisix_http_status HTTP status codes\n# TYPE apisix_http_status counter\napisix_http_status{code=\"200\"} 3\n"
	appText    = "# TYPE app_jobs gauge\napp_jobs 7\n# TYPE go_goroutines gauge\ngo_goroutines 5"
	appOpen    = "# TYPE app_jobs counter\napp_jobs_total 7.0 # {trace_id=\"x\"} 1.0\n# EOF\n"

	fromPrometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6," +
		"application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

// exporter answers with metrics. Its zero value fails.
type exporter struct {
	text, contentType string
	// open is answered to who prefers OpenMetrics; empty is text all the same.
	open  string
	hangs bool

	seen http.Header
	*httptest.Server
}

func (e *exporter) start(t *testing.T) *exporter {
	t.Helper()
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.seen = r.Header
		switch {
		case e.hangs:
			<-r.Context().Done()
		case e.text == "":
			w.WriteHeader(http.StatusInternalServerError)
		case e.open != "" && strings.HasPrefix(r.Header.Get("Accept"), "application/openmetrics-text"):
			w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
			_, _ = io.WriteString(w, e.open)
		default:
			w.Header().Set("Content-Type", e.contentType)
			_, _ = io.WriteString(w, e.text)
		}
	}))
	t.Cleanup(e.Close)
	return e
}

// own is a registry with a metric that any program has, and one of the bridge.
func own() *prometheus.Registry {
	r := prometheus.NewRegistry()
	for _, name := range []string{"go_goroutines", "meshbridge_revision"} {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name})
		g.Set(11)
		r.MustRegister(g)
	}
	return r
}

func (p *port) failures(source string) float64 {
	p.t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "meshbridge_merged_scrape_failures_total" && m.GetLabel()[0].GetValue() == source {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func parsed(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("Prometheus would refuse it: %v\n%s", err, text)
	}
	return families
}

func TestMergedMetricsAreThoseOfAllThree(t *testing.T) {
	apisix, app := (&exporter{text: apisixText}).start(t), (&exporter{text: appText, contentType: "text/plain; version=0.0.4"}).start(t)
	p := serve(t, Config{Gatherer: own(), APISIX: apisix.URL, Scrape: &Scrape{URLs: []string{app.URL}}})
	code, header, body := p.request(http.MethodGet, "/stats/prometheus", "Accept", fromPrometheus, "User-Agent", "Prometheus/3", "X-Prometheus-Scrape-Timeout-Seconds", "7.5")
	if code != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("%d %v", code, header)
	}
	families := parsed(t, body)
	for name, want := range map[string]float64{"meshbridge_revision": 11, "meshbridge_go_goroutines": 11, "apisix_http_status": 3, "app_jobs": 7, "go_goroutines": 5} {
		f := families[name]
		if len(f.GetMetric()) != 1 {
			t.Errorf("%s: %d samples", name, len(f.GetMetric()))
			continue
		}
		if m := f.GetMetric()[0]; m.GetGauge().GetValue()+m.GetCounter().GetValue() != want {
			t.Errorf("%s: %v, want %v", name, m, want)
		}
	}
	if !strings.HasSuffix(body, "go_goroutines 5\n") || strings.Contains(body, "EOF") {
		t.Errorf("the application's come last, as text:\n%s", body)
	}
	if app.seen.Get("User-Agent") != "Prometheus/3" || app.seen.Get("X-Prometheus-Scrape-Timeout-Seconds") != "7.5" {
		t.Errorf("the application saw %v", app.seen)
	}
	if accept := apisix.seen.Get("Accept"); strings.Contains(accept, "openmetrics") {
		t.Errorf("APISIX was asked for %s", accept)
	}
	// /metrics is for those who ask APISIX themselves.
	if _, alone := p.get("/metrics"); strings.Contains(alone, "apisix") || !strings.Contains(alone, "\ngo_goroutines 11") {
		t.Errorf("/metrics: %s", alone)
	}
}

func TestAnApplicationWithOpenMetricsMakesAllOfIt(t *testing.T) {
	apisix, app := (&exporter{text: apisixText}).start(t), (&exporter{text: appText, open: appOpen}).start(t)
	p := serve(t, Config{Gatherer: own(), APISIX: apisix.URL, Scrape: &Scrape{URLs: []string{app.URL}}})
	_, header, body := p.request(http.MethodGet, "/stats/prometheus", "Accept", fromPrometheus)
	if got := header.Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text; version=1.0.0") {
		t.Errorf("the type is %s", got)
	}
	// A counter keeps its name, although OpenMetrics would have it end in _total.
	for _, want := range []string{"\napisix_http_status{code=\"200\"} 3.0\n", "# TYPE apisix_http_status unknown\n", "app_jobs_total 7.0 # {trace_id=\"x\"} 1.0\n# EOF\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	if strings.Count(body, "# EOF") != 1 || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("the end is not at the end:\n%s", body)
	}
	// To who wants neither, text is given.
	if _, header, _ := p.request(http.MethodGet, "/stats/prometheus", "Accept", "application/vnd.google.protobuf"); !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
		t.Errorf("the type is %s", header.Get("Content-Type"))
	}
}

func TestSeveralApplicationsAreAskedForText(t *testing.T) {
	one, other := (&exporter{text: appText, open: appOpen}).start(t), (&exporter{text: "other 1\n", open: appOpen}).start(t)
	p := serve(t, Config{Scrape: &Scrape{URLs: []string{one.URL, other.URL}}})
	_, body := p.get("/stats/prometheus", "Accept", fromPrometheus)
	if !strings.HasSuffix(body, "go_goroutines 5\nother 1\n") {
		t.Errorf("they are in order:\n%s", body)
	}
}

func TestASourceThatFailsIsLeftOut(t *testing.T) {
	broken := &failing{}
	for name, c := range map[string]struct {
		apisix, app *exporter
		own         prometheus.Gatherer
		failed      string
		want, not   string
	}{
		"APISIX is away":                  {&exporter{}, &exporter{text: appText}, own(), sourceAPISIX, "app_jobs 7", "apisix_"},
		"APISIX says what is no metric":   {&exporter{text: "<html>"}, &exporter{text: appText}, own(), sourceAPISIX, "app_jobs 7", "html"},
		"APISIX hangs":                    {&exporter{hangs: true}, &exporter{text: appText}, own(), sourceAPISIX, "app_jobs 7", "apisix_"},
		"the application is away":         {&exporter{text: apisixText}, &exporter{}, own(), sourceApplication, "apisix_http_status", "app_"},
		"the application hangs":           {&exporter{text: apisixText}, &exporter{hangs: true}, own(), sourceApplication, "apisix_http_status", "app_"},
		"the application says too much":   {&exporter{text: apisixText}, &exporter{text: strings.Repeat("x", 2000)}, own(), sourceApplication, "apisix_http_status", "xx"},
		"the bridge's cannot be gathered": {&exporter{text: apisixText}, &exporter{text: appText}, broken, sourceOwn, "app_jobs 7", "meshbridge_revision"},
	} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, Config{Gatherer: c.own, APISIX: c.apisix.start(t).URL, Scrape: &Scrape{URLs: []string{c.app.start(t).URL}}})
			p.limit(1000)
			code, body := p.get("/stats/prometheus", "X-Prometheus-Scrape-Timeout-Seconds", "0.5")
			if code != http.StatusOK || !strings.Contains(body, c.want) || strings.Contains(body, c.not) {
				t.Errorf("%d\n%s", code, body)
			}
			parsed(t, body)
			for _, source := range []string{sourceOwn, sourceAPISIX, sourceApplication} {
				want := 0.0
				if source == c.failed {
					want = 1
				}
				if got := p.failures(source); got != want {
					t.Errorf("%v failures of %s, want %v", got, source, want)
				}
			}
		})
	}
}

type failing struct{}

// Gather implements prometheus.Gatherer.
func (*failing) Gather() ([]*dto.MetricFamily, error) { return nil, errors.New("collected before") }

func TestMergedMetricsAreCompressed(t *testing.T) {
	p := serve(t, Config{Gatherer: own()})
	_, header, body := p.request(http.MethodGet, "/stats/prometheus", "Accept-Encoding", "gzip")
	if header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("headers %v", header)
	}
	z, err := gzip.NewReader(bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(z); err != nil || !strings.Contains(string(text), "meshbridge_revision 11") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestTheTimeOfAScrapeLeavesSomeToAnswer(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 9500 * time.Millisecond, "10": 9500 * time.Millisecond, "1": 800 * time.Millisecond, "bad": 9500 * time.Millisecond,
		"-1": 9500 * time.Millisecond, "NaN": 9500 * time.Millisecond, "1e300": 9500 * time.Millisecond,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", text)
		if got := timeoutOf(r); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestWhatIsScrapedOfTheApplication(t *testing.T) {
	for text, want := range map[string]string{
		"": "", `{"scrape":"false","port":"9102"}`: "",
		`{"scrape":"true"}`: "http://localhost:80/metrics",
		`{"scrape":"true","path":"stats?all","port":"9102"}`:                  "http://localhost:9102/stats?all",
		`{"scrape":"true","targets":[{"port":"1"},{"port":"2","path":"/m"}]}`: "http://localhost:1/metrics http://localhost:2/m",
	} {
		s, err := ParseScrape(text, 15020)
		got := ""
		if s != nil {
			got = strings.Join(s.URLs, " ")
		}
		if err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		`{`: "unexpected end", `{"port":"http"}`: "want a number", `{"port":"0"}`: "want a number",
		`{"port":"15090"}`: "APISIX's metrics", `{"port":"015020"}`: "this port", `{"port":"4020"}`: "this port",
		`{"port":"80","path":"/\u007f"}`: "path",
	} {
		if s, err := ParseScrape(text, 4020); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v %v, want %q", text, s, err, want)
		}
	}
}

func TestWhatTheApplicationIsAskedFor(t *testing.T) {
	for client, want := range map[string]string{
		"": acceptText, "application/vnd.google.protobuf;q=1": acceptText, "bad bad": acceptText,
		"text/plain;version=0.0.4;q=0.3,application/openmetrics-text;version=1.0.0": "text/plain; version=0.0.4; q=0.3, application/openmetrics-text; version=1.0.0; q=1",
		"*/*":                          "text/plain; version=0.0.4; q=1",
		"application/*;q=0,text/*;q=1": "text/plain; version=0.0.4; q=1",
	} {
		if got := acceptFor(client); got != want {
			t.Errorf("%q: %q, want %q", client, got, want)
		}
	}
}

func TestScrapesAreCounted(t *testing.T) {
	p := serve(t, Config{})
	p.get("/stats/prometheus")
	if _, body := p.get("/metrics"); !strings.Contains(body, "\nmeshbridge_merged_scrapes_total 1\n") {
		t.Error(body)
	}
}
