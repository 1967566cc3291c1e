package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"meshbridge/translate"
)

// reportOf is a report with one series of requests that took 7 ms and had 100 and 2000 bytes.
func reportOf(worker string, sequence int, requests int, series string) string {
	d := func(value, bucket int) string {
		values := make([]int, buckets+1)
		values[0], values[1+bucket] = value*requests, requests
		data, err := json.Marshal(values)
		if err != nil {
			panic(err)
		}
		return string(data)
	}
	return fmt.Sprintf(`{"worker": %q, "sequence": %d, "series": [{%s, "count": %d, "duration": %s, "received": %s, "sent": %s}]}`,
		worker, sequence, series, requests, d(7, 3), d(100, 6), d(2000, 10))
}

const outbound = `"route": "r.out", "upstream": "u.reviews", "node": "10.0.0.1:9080", "status": 200`

func TestAnOutboundRequestHasTheLabelsOfIstiosClients(t *testing.T) {
	c := newCounted(t, newWorld(t))
	if code := c.post(t, reportOf("1", 1, 3, outbound)); code != http.StatusNoContent {
		t.Fatal(code)
	}
	const labels = `connection_security_policy="unknown",destination_app="unknown",destination_canonical_revision="v1",` +
		`destination_canonical_service="reviews",destination_cluster="Kubernetes",destination_principal="unknown",` +
		`destination_service="reviews.default.svc.cluster.local",destination_service_name="reviews",destination_service_namespace="default",` +
		`destination_version="unknown",destination_workload="reviews-v1",destination_workload_namespace="default",grpc_response_status="",` +
		`reporter="source",request_protocol="http",response_code="200",response_flags="-",source_app="client",` +
		`source_canonical_revision="v7",source_canonical_service="client",source_cluster="Kubernetes",source_principal="unknown",` +
		`source_version="v7",source_workload="client",source_workload_namespace="shop"`
	c.compare(t, `
# HELP istio_requests_total Requests, by Istio's labels.
# TYPE istio_requests_total counter
istio_requests_total{`+labels+`} 3
`, "istio_requests_total")
	var lines strings.Builder
	lines.WriteString("# HELP istio_request_duration_milliseconds Time from the start of a request to the end of its response.\n" +
		"# TYPE istio_request_duration_milliseconds histogram\n")
	for _, bound := range []string{
		"0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000", "300000", "600000", "1.8e+06", "3.6e+06", "+Inf",
	} {
		n := 3
		if bound == "0.5" || bound == "1" || bound == "5" {
			n = 0
		}
		fmt.Fprintf(&lines, "istio_request_duration_milliseconds_bucket{%s,le=%q} %d\n", labels, bound, n)
	}
	fmt.Fprintf(&lines, "istio_request_duration_milliseconds_sum{%s} 21\nistio_request_duration_milliseconds_count{%s} 3\n", labels, labels)
	c.compare(t, lines.String(), "istio_request_duration_milliseconds")
	c.compare(t, `
# HELP istio_build The release of Istio that the proxy says it is of.
# TYPE istio_build gauge
istio_build{component="proxy",tag="1.31.0"} 1
`, "istio_build")
}

func TestAnInboundRequestHasTheLabelsOfIstiosServers(t *testing.T) {
	c := newCounted(t, newWorld(t))
	// What Istio's proxies send of a workload "web-v2" of the namespace "front".
	const metadata = "ChoKCU5BTUVTUEFDRRINGgtmcm9udC1pc3RpbwoZCg1XT1JLTE9BRF9OQU1FEggaBndlYi12MgohCgpDTFVTVEVSX0lEEhMaEUt1YmVybmV0ZXMtcmVtb3Rl"
	series := `"route": "r.in", "upstream": "u.in", "node": "127.0.0.1:8080", "status": 200, "peer": "sidecar~1", "metadata": "` + metadata + `"`
	c.post(t, reportOf("1", 1, 2, series+`, "principal": "spiffe://cluster.local/ns/front/sa/web"`))
	c.post(t, reportOf("1", 2, 5, `"route": "r.in", "upstream": "u.in", "node": "127.0.0.1:8080", "status": 200`))
	for name, with := range map[string][]string{
		"over mesh TLS": {
			"reporter=destination", "source_workload=web-v2", "source_cluster=Kubernetes-remote",
			"source_workload_namespace=front", // that of the certificate, whatever the peer says
			"source_principal=spiffe://cluster.local/ns/front/sa/web",
			"destination_principal=spiffe://cluster.local/ns/shop/sa/client", "connection_security_policy=mutual_tls",
			"destination_service=web.shop.svc.cluster.local", "destination_service_name=web", "destination_service_namespace=shop",
			"destination_workload=client", "destination_app=client",
		},
		"in plain text": {
			"reporter=destination", "source_workload=unknown", "source_principal=unknown", "source_canonical_revision=latest",
			"destination_principal=unknown", "connection_security_policy=none",
		},
	} {
		want := 2.0
		if name == "in plain text" {
			want = 5
		}
		if got := c.value(t, "istio_requests_total", with...); got != want {
			t.Errorf("%s: %g requests, want %g", name, got, want)
		}
	}
}

func TestHowARequestFailedIsInTheLabels(t *testing.T) {
	for name, c := range map[string]struct{ series, code, flags string }{
		"no route":                  {`"route": "r.404", "status": 404, "host": "a.com"`, "404", "NR"},
		"no route on a chain":       {`"route": "chain/9080", "status": 404, "host": "a.com"`, "404", "NR"},
		"no endpoint":               {`"route": "r.out", "upstream": "u.reviews", "status": 503, "failure": "choose"`, "503", "UH"},
		"no such cluster":           {`"route": "r.out", "upstream": "u.gone", "status": 503, "failure": "choose"`, "503", "NC"},
		"no connection":             {outbound[:len(outbound)-3] + `502, "failure": "connect"`, "502", "UF"},
		"no connection to anything": {outbound[:len(outbound)-3] + `502, "failure": "connect+"`, "502", "UF,URX"},
		"no answer in time":         {outbound[:len(outbound)-3] + `504, "failure": "answer"`, "504", "UT"},
		"no answer":                 {outbound[:len(outbound)-3] + `502, "failure": "answer"`, "502", "UC"},
		"the client did not wait":   {outbound[:len(outbound)-3] + `499`, "0", "DC"},
		"the endpoint said so":      {outbound[:len(outbound)-3] + `503`, "503", "-"},
		"a fault is injected":       {`"route": "r.fault", "upstream": "u.reviews", "status": 418`, "418", "FI"},
		"too many requests":         {`"route": "r.out", "upstream": "u.reviews", "status": 429`, "429", "RL"},
		"too many at a time":        {`"route": "r.out", "upstream": "u.reviews", "status": 503`, "503", "UO"},
	} {
		t.Run(name, func(t *testing.T) {
			counts := newCounted(t, newWorld(t))
			counts.post(t, reportOf("1", 1, 1, c.series))
			if got := counts.value(t, "istio_requests_total", "response_code="+c.code, "response_flags="+c.flags); got != 1 {
				text, _ := counts.registry.Gather()
				t.Errorf("%g requests with code %s and flags %s: %v", got, c.code, c.flags, text)
			}
		})
	}
}

func TestGRPCHasAProtocolAndAStatus(t *testing.T) {
	c := newCounted(t, newWorld(t))
	c.post(t, reportOf("1", 1, 1, outbound+`, "grpc": "14"`))
	c.post(t, reportOf("1", 2, 1, outbound+`, "grpc": "-"`))
	if got := c.value(t, "istio_requests_total", "request_protocol=grpc", "grpc_response_status=14"); got != 1 {
		t.Errorf("%g with a status", got)
	}
	if got := c.value(t, "istio_requests_total", "request_protocol=grpc", "grpc_response_status="); got != 1 {
		t.Errorf("%g without", got)
	}
}

func TestADestinationBehindCaptureIsTheEndpointThatItStandsFor(t *testing.T) {
	w := newWorld(t)
	alias := netip.MustParseAddr("127.96.0.7")
	w.overlay[alias] = &translate.OverlayEndpoint{
		Address: alias, Cluster: reviews, Target: netip.MustParseAddrPort("10.0.0.1:9080"),
		TLS: &translate.UpstreamTLS{
			Credential: translate.Credential{Workload: true},
			SANs:       []translate.SANMatch{{Exact: "spiffe://cluster.local/ns/default/sa/reviews"}},
		},
	}
	c := newCounted(t, w)
	c.post(t, reportOf("1", 1, 1, strings.Replace(outbound, "10.0.0.1:9080", "127.96.0.7:15011", 1)))
	if got := c.value(t, "istio_requests_total",
		"destination_workload=reviews-v1", "destination_principal=spiffe://cluster.local/ns/default/sa/reviews",
		"source_principal=spiffe://cluster.local/ns/shop/sa/client"); got != 1 {
		t.Errorf("%g requests", got)
	}
}

func TestWhatNoServiceClaimsIsCountedAsPassedThrough(t *testing.T) {
	c := newCounted(t, newWorld(t))
	c.post(t, reportOf("1", 1, 1, `"route": "r.any", "upstream": "u.PassthroughCluster", "node": "127.96.0.1:15011", "status": 200, "host": "example.com"`))
	if got := c.value(t, "istio_requests_total", "destination_service=example.com", "destination_service_name=PassthroughCluster"); got != 1 {
		t.Errorf("%g requests", got)
	}
}

func TestRequestsAreCountedWhereIstiodAsksForIt(t *testing.T) {
	w := newWorld(t)
	c := newCounted(t, w)
	c.post(t, reportOf("1", 1, 1, `"route": "r.uncounted", "upstream": "u.reviews", "status": 200`))
	if got := c.value(t, "istio_requests_total"); got != 0 {
		t.Errorf("%g requests of a chain without the filter", got)
	}
	c.resolver.always = true
	c.post(t, reportOf("1", 2, 1, `"route": "r.uncounted", "upstream": "u.reviews", "status": 201`))
	if got := c.value(t, "istio_requests_total", "reporter=source"); got != 1 {
		t.Errorf("%g requests where all are to be counted", got)
	}
	// Switched off, and on again with other labels.
	c.post(t, reportOf("1", 3, 1, outbound))
	c.resolver.always = false
	w.chains["9080"] = &translate.Chain{Key: "9080", HTTP: true}
	c.post(t, reportOf("1", 4, 1, outbound))
	if got := c.value(t, "istio_requests_total", "response_code=200"); got != 1 {
		t.Errorf("%g requests after counting was switched off", got)
	}
}

func TestLabelsAreThoseOfTheTelemetryAPI(t *testing.T) {
	w := newWorld(t)
	w.chains["9080"] = &translate.Chain{Key: "9080", HTTP: true, Stats: &translate.Stats{Reporter: "source", Metrics: map[string]translate.MetricStats{
		"requests_total": {Remove: []string{"response_code", "response_flags"}, Set: map[string]translate.StatsLabel{
			"mesh": {Node: []string{"MESH_ID"}}, "team": {Text: "a", Known: true}, "method": {},
		}},
		"request_bytes": {Drop: true},
	}}}
	c := newCounted(t, w)
	c.post(t, reportOf("1", 1, 1, outbound))
	c.post(t, reportOf("1", 2, 2, strings.Replace(outbound, "200", "500", 1))) // the same series without response_code
	if got := c.value(t, "istio_requests_total", "mesh=mesh1", "team=a", "method=unknown"); got != 3 {
		t.Errorf("%g requests", got)
	}
	if got := c.value(t, "istio_requests_total", "response_code=200"); got != 0 {
		t.Errorf("%g requests have a label that was removed", got)
	}
	if got := c.value(t, "istio_request_bytes"); got != 0 {
		t.Errorf("%g requests in a metric that was dropped", got)
	}
	if got := c.value(t, "istio_response_bytes", "response_code=500"); got != 2 {
		t.Errorf("%g requests in a metric without changes", got)
	}
}

func TestEveryRequestIsCountedOnceUnderLoad(t *testing.T) {
	c := newCounted(t, newWorld(t))
	server := httptest.NewServer(c)
	defer server.Close()
	const workers, reports, each = 8, 50, 137
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for n := range reports {
				body := reportOf(strconv.Itoa(worker), n+1, each, outbound)
				for range 1 + n%3 { // answers that get lost make a process repeat a report
					request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+Path, strings.NewReader(body))
					if err != nil {
						t.Error(err)
						return
					}
					answer, err := client.Do(request)
					if err != nil {
						t.Error(err)
						return
					}
					answer.Body.Close()
				}
			}
		})
	}
	all.Wait()
	if got := c.value(t, "istio_requests_total"); got != workers*reports*each {
		t.Errorf("%g requests, want %d", got, workers*reports*each)
	}
	if got := c.value(t, "istio_request_duration_milliseconds"); got != workers*reports*each {
		t.Errorf("%g durations", got)
	}
}

func TestReportsThatMakeNoSenseAreRefused(t *testing.T) {
	good := reportOf("1", 1, 1, outbound)
	for name, body := range map[string]string{
		"no JSON":                  "hello",
		"too many series":          `{"worker": "1", "sequence": 1, "series": [` + strings.Repeat("{},", maxReportSeries) + `{}]}`,
		"series that are none":     strings.Replace(strings.Replace(good, "[", "{", 1), "]}", "}}", 1),
		"no worker":                strings.Replace(good, `"worker": "1"`, `"worker": ""`, 1),
		"no sequence":              strings.Replace(good, `"sequence": 1`, `"sequence": 0`, 1),
		"a negative count":         strings.Replace(good, `"count": 1`, `"count": -1`, 1),
		"another count":            strings.Replace(good, `"count": 1`, `"count": 1000000`, 1),
		"too few buckets":          strings.Replace(good, `[7,`, `[`, 1),
		"a fraction of a request":  strings.Replace(good, `,1,`, `,0.5,`, 1),
		"a negative sum":           strings.Replace(good, `[7,`, `[-7,`, 1),
		"a status that is none":    strings.Replace(good, `"status": 200`, `"status": 70000`, 1),
		"a text that is too long":  strings.Replace(good, `r.out`, strings.Repeat("r", maxText+1), 1),
		"metadata that is too big": strings.Replace(good, `"status"`, `"metadata": "`+strings.Repeat("r", maxMetadata+1)+`", "status"`, 1),
	} {
		c := newCounted(t, newWorld(t))
		if code := c.post(t, body); code != http.StatusBadRequest {
			t.Errorf("%s: %d", name, code)
		}
		if got := c.value(t, "istio_requests_total"); got != 0 {
			t.Errorf("%s: %g requests are counted", name, got)
		}
		if got := c.value(t, "meshbridge_request_reports_refused_total"); got != 1 {
			t.Errorf("%s: %g refused", name, got)
		}
	}
	c := newCounted(t, newWorld(t))
	answer := httptest.NewRecorder()
	c.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, Path, nil))
	if answer.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", answer.Code)
	}
}

func TestMadeUpNamesDoNotFillMemory(t *testing.T) {
	c := newCounted(t, newWorld(t))
	const names = maxSeries + 3000
	var all []string
	for i := range names {
		one := reportOf("1", 1, 1, fmt.Sprintf(`"route": "r.any", "upstream": "u.PassthroughCluster", "status": 200, "host": "%d.example.com"`, i))
		_, series, _ := strings.Cut(one, "[")
		all = append(all, strings.TrimSuffix(series, "]}"))
	}
	if code := c.post(t, `{"worker": "1", "sequence": 1, "series": [`+strings.Join(all, ",")+`]}`); code != http.StatusNoContent {
		t.Fatal(code)
	}
	if got := len(c.series.all); got > maxSeries+1 {
		t.Errorf("%d series", got)
	}
	if got := c.value(t, "istio_requests_total"); got != names {
		t.Errorf("%g requests, want all %d", got, names)
	}
	if got := c.value(t, "istio_requests_total", "destination_service=unknown"); got != 3000 {
		t.Errorf("%g requests without name", got)
	}
	if got := c.value(t, "meshbridge_request_folded_total"); got != 3000 {
		t.Errorf("%g folded", got)
	}
}

func TestProcessesThatComeAndGoDoNotFillMemory(t *testing.T) {
	c := newCounted(t, newWorld(t))
	for i := range 3 * maxWorkers {
		c.post(t, reportOf(strconv.Itoa(i), 1, 1, outbound))
	}
	if len(c.workers) > maxWorkers {
		t.Errorf("%d workers are known", len(c.workers))
	}
}

func TestSeriesExpireAsIstiosDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.chains["9080"].Stats.Rotation, w.chains["9080"].Stats.Grace = time.Hour, time.Minute
		c := newCounted(t, w)
		done := make(chan error)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- c.Run(ctx) }()
		c.post(t, reportOf("1", 1, 1, outbound))
		inbound := `"route": "r.in", "upstream": "u.in", "node": "127.0.0.1:8080", "status": 200`
		c.post(t, reportOf("1", 2, 1, inbound))
		time.Sleep(59 * time.Minute) //nolint:forbidigo // the clock of the bubble
		if got := c.value(t, "istio_requests_total", "reporter=source"); got != 1 {
			t.Errorf("%g requests before the time", got)
		}
		time.Sleep(3 * time.Minute) //nolint:forbidigo // as above
		if got := c.value(t, "istio_requests_total", "reporter=source"); got != 0 {
			t.Errorf("%g requests after the time", got)
		}
		if got := c.value(t, "istio_requests_total", "reporter=destination"); got != 1 {
			t.Errorf("%g requests of a chain whose series do not expire", got)
		}
		cancel()
		<-done
	})
}

func FuzzTexts(f *testing.F) {
	for _, seed := range []string{`["a","b\/c","\u00e9\n","\"","\\"]`, `[""]`, `[]`, `["a"`, `["a",]`, `["a\`, `["`, `["a" ]`, `["a",1]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if !utf8.ValidString(line) {
			return
		}
		got, err := parseTexts(line)
		if err != nil {
			return
		}
		// Between texts there is nothing; within, control characters, which parseEntry takes out.
		var want []string
		clean := strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, line)
		if err := json.Unmarshal([]byte(clean), &want); err != nil {
			t.Fatalf("%q is read, and is not JSON: %v", line, err)
		}
		for i := range got {
			if clean == line && got[i] != want[i] {
				t.Errorf("%q: %q, want %q", line, got[i], want[i])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%q: %d texts, want %d", line, len(got), len(want))
		}
	})
}

func FuzzReport(f *testing.F) {
	f.Add(reportOf("1", 1, 3, outbound))
	f.Add(`{"worker": "1", "sequence": 1, "series": []}`)
	f.Add(reportOf("1", 1, 1, outbound) + "\n" + entryOf(map[column]string{columnSeries: "1", columnRequest: "GET / HTTP/1.1"}))
	f.Fuzz(func(t *testing.T, body string) {
		r, lines, err := parseReport([]byte(body))
		if err != nil {
			return
		}
		for line := range bytes.Lines(lines) {
			if e, of, err := parseEntry(line, r.Series); err == nil {
				(&resolved{chain: &translate.Chain{}}).entry(time.Now(), e, &r.Series[of])
			}
		}
		for i := range r.Series {
			if s := &r.Series[i]; s.Duration.count() != s.Count || s.Count == 0 {
				t.Errorf("%d requests, %d durations", s.Count, s.Duration.count())
			}
		}
	})
}
