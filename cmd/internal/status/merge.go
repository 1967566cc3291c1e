package status

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	// maxMetrics bounds what is read of one source, which is in memory until it is complete: an answer that
	// breaks off must not spoil those of the others.
	maxMetrics = 10 << 20
	// scrapeTimeout is Prometheus' default, and scrapeMargin what remains of a scrape's time for sending the
	// answer.
	scrapeTimeout = 10 * time.Second
	scrapeMargin  = 500 * time.Millisecond
)

// Sources of metrics, as the label "source" has them.
const (
	sourceOwn         = "bridge"
	sourceAPISIX      = "apisix"
	sourceApplication = "application"
)

// merger answers with the metrics of the bridge, of APISIX and of the application, in this order: the
// application's may be OpenMetrics, which has an end. A source that fails is left out and counted, so that a
// broken application does not blind those who watch its proxy.
type merger struct {
	gatherer     prometheus.Gatherer
	apisix       string
	applications []string
	log          *slog.Logger
	client       *http.Client
	scrapes      prometheus.Counter
	failures     *prometheus.CounterVec
	limit        int64 // bytes of one source
}

func newMerger(c Config) (*merger, error) {
	m := &merger{
		gatherer: c.Gatherer, apisix: c.APISIX, log: c.Logger, limit: maxMetrics,
		// A scrape is rare: a connection that is kept would count among those of APISIX.
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		scrapes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "meshbridge_merged_scrapes_total", Help: "Requests for merged metrics.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meshbridge_merged_scrape_failures_total",
			Help: "Sources that were left out of merged metrics, because they could not be read: bridge, apisix or application.",
		}, []string{"source"}),
	}
	if c.Scrape != nil {
		m.applications = c.Scrape.URLs
	}
	for _, source := range []string{sourceOwn, sourceAPISIX, sourceApplication} {
		m.failures.WithLabelValues(source)
	}
	for _, collector := range []prometheus.Collector{m.scrapes, m.failures} {
		if err := c.Registerer.Register(collector); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// scraped is what a source has answered.
type scraped struct {
	body   []byte
	format expfmt.Format
}

// ServeHTTP implements http.Handler.
func (m *merger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.scrapes.Inc()
	ctx, cancel := context.WithTimeout(r.Context(), timeoutOf(r))
	defer cancel()

	accept := acceptFor(r.Header.Get("Accept"))
	if len(m.applications) > 1 {
		// They could not be in one answer if they chose differently.
		accept = acceptText
	}
	var sources sync.WaitGroup
	var apisix scraped
	if m.apisix != "" {
		sources.Go(func() { apisix = m.scrape(ctx, r, sourceAPISIX, m.apisix, acceptText) })
	}
	applications := make([]scraped, len(m.applications))
	for i, url := range m.applications {
		sources.Go(func() { applications[i] = m.scrape(ctx, r, sourceApplication, url, accept) })
	}
	sources.Wait()

	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	if len(applications) == 1 && applications[0].body != nil {
		format = applications[0].format
	}
	var merged bytes.Buffer
	m.add(ctx, &merged, format, sourceOwn, m.own)
	if apisix.body != nil {
		m.add(ctx, &merged, format, sourceAPISIX, func(to expfmt.Encoder) error { return transcode(apisix.body, to) })
	}
	for _, a := range applications {
		appendMetrics(&merged, a.body)
	}
	if format.FormatType() == expfmt.TypeOpenMetrics {
		merged.WriteString("# EOF\n")
	}
	send(w, r, string(format), merged.Bytes())
}

// timeoutOf is how long the sources have: a little less than the scrape, which a source that hangs would
// otherwise take with it.
func timeoutOf(r *http.Request) time.Duration {
	timeout := scrapeTimeout
	seconds, err := strconv.ParseFloat(r.Header.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64)
	if err == nil && seconds > 0 && seconds < math.MaxInt32 {
		timeout = time.Duration(seconds * float64(time.Second))
	}
	return timeout - min(scrapeMargin, timeout/5)
}

// scrape reads a source; its body is nil where that fails.
func (m *merger) scrape(ctx context.Context, r *http.Request, source, url, accept string) scraped {
	s, err := m.read(ctx, r, url, accept)
	if err != nil {
		m.failed(ctx, source, err)
		return scraped{}
	}
	return s
}

func (m *merger) failed(ctx context.Context, source string, err error) {
	m.failures.WithLabelValues(source).Inc()
	m.log.WarnContext(ctx, "metrics are incomplete", slog.String("source", source), slog.Any("error", err))
}

func (m *merger) read(ctx context.Context, r *http.Request, url, accept string) (s scraped, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return s, err
	}
	request.Header.Set("Accept", accept)
	for _, name := range []string{"User-Agent", "X-Prometheus-Scrape-Timeout-Seconds"} {
		if value := r.Header.Get(name); value != "" {
			request.Header.Set(name, value)
		}
	}
	answer, err := m.client.Do(request)
	if err != nil {
		return s, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return s, fmt.Errorf("%s: HTTP %d", url, answer.StatusCode)
	}
	s.format = formatOf(answer.Header.Get("Content-Type"))
	s.body, err = io.ReadAll(io.LimitReader(answer.Body, m.limit+1))
	switch {
	case err != nil:
		return s, fmt.Errorf("%s: %w", url, err)
	case int64(len(s.body)) > m.limit:
		return s, fmt.Errorf("%s: %w: more than %d bytes", url, errOversize, m.limit)
	}
	return s, nil
}

// add encodes a source's metrics. Where that fails, what it has written is taken back.
func (m *merger) add(ctx context.Context, to *bytes.Buffer, format expfmt.Format, source string, encode func(expfmt.Encoder) error) {
	before := to.Len()
	encoder := expfmt.NewEncoder(to, format)
	if format.FormatType() == expfmt.TypeOpenMetrics {
		encoder = keepingNames{encoder}
	}
	if err := encode(encoder); err != nil {
		to.Truncate(before)
		m.failed(ctx, source, err)
	}
}

// own encodes the bridge's metrics.
func (m *merger) own(to expfmt.Encoder) error {
	families, err := m.gatherer.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if err := to.Encode(renamed(f)); err != nil {
			return fmt.Errorf("%s: %w", f.GetName(), err)
		}
	}
	return nil
}

// renamed gives the bridge's prefix to metrics that any program has: the application's, of the same name,
// come in the same answer, and Prometheus would keep the first alone.
func renamed(f *dto.MetricFamily) *dto.MetricFamily {
	for _, prefix := range []string{"go_", "process_", "promhttp_", "grpc_", "etcd_"} {
		if strings.HasPrefix(f.GetName(), prefix) {
			return &dto.MetricFamily{Name: new("meshbridge_" + f.GetName()), Help: f.Help, Type: f.Type, Metric: f.Metric, Unit: f.Unit} //nolint:protogetter // copied as they are, absent or not
		}
	}
	return f
}

// keepingNames encodes OpenMetrics in which metrics have the names that they have in text: a counter without
// the suffix _total, which would be given it, is of unknown type instead.
type keepingNames struct{ expfmt.Encoder }

// Encode implements expfmt.Encoder.
func (k keepingNames) Encode(f *dto.MetricFamily) error {
	if f.GetType() != dto.MetricType_COUNTER || strings.HasSuffix(f.GetName(), "_total") {
		return k.Encoder.Encode(f)
	}
	unknown := &dto.MetricFamily{Name: new(f.GetName()), Help: f.Help, Type: dto.MetricType_UNTYPED.Enum(), Unit: f.Unit}
	for _, m := range f.GetMetric() {
		unknown.Metric = append(unknown.Metric, &dto.Metric{
			Label: m.GetLabel(), Untyped: &dto.Untyped{Value: new(m.GetCounter().GetValue())}, TimestampMs: m.TimestampMs,
		})
	}
	return k.Encoder.Encode(unknown)
}

// transcode reads metrics as text and encodes them.
func transcode(text []byte, to expfmt.Encoder) error {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if err := to.Encode(families[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// appendMetrics adds a source's own text, without its end.
func appendMetrics(to *bytes.Buffer, body []byte) {
	body = bytes.TrimRight(body, " \t\r\n")
	body = bytes.TrimRight(bytes.TrimSuffix(body, []byte("# EOF")), "\r\n")
	if len(body) > 0 {
		to.Write(body)
		to.WriteByte('\n')
	}
}

// send answers, compressed where the client takes that.
func send(w http.ResponseWriter, r *http.Request, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		_, _ = w.Write(body)
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	_, _ = z.Write(body)
	_ = z.Close()
}
