package telemetry

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"meshbridge/translate"
	"meshbridge/translate/accesslog"
)

// entryOf is a line of a report.
func entryOf(texts map[column]string, headers ...string) string {
	fields := make([]string, columns)
	for c, text := range texts {
		fields[c] = text
	}
	line, err := json.Marshal(append(fields, headers...))
	if err != nil {
		panic(err)
	}
	return string(line)
}

// loggedWorld is newWorld with a log on the chain 9080, and returns that.
func loggedWorld(tb testing.TB) (*fakeWorld, *accesslog.Log) {
	tb.Helper()
	w := newWorld(tb)
	log := &accesslog.Log{Path: "/dev/stdout"}
	w.chains["9080"].AccessLogs, w.chains["9080"].Listener = []*accesslog.Log{log}, "0.0.0.0_9080"
	return w, log
}

func TestTheProgramReportsEveryRequestOfALoggedChain(t *testing.T) {
	w, log := loggedWorld(t)
	const requests = 9990
	rule := Rule{Profile: translate.Mesh(), Logged: []LoggedChain{{Key: "9080", RequestHeaders: []string{"user-agent"}, ResponseHeaders: []string{"x-kind"}}}}
	c := newCounted(t, w)
	for _, body := range runProgram(t, rule, requests, 1000, 2) {
		if code := c.post(t, body); code != http.StatusNoContent {
			t.Fatalf("%d: %.500s", code, body)
		}
	}
	if got := c.value(t, "istio_requests_total"); got != requests {
		t.Errorf("%g requests are counted, want %d", got, requests)
	}
	if len(c.written.entries) != requests/2 {
		t.Fatalf("%d entries, want those of one of the two chains, %d", len(c.written.entries), requests/2)
	}
	for i, e := range c.written.entries {
		if want := "/a%2Fb?c=" + strconv.Itoa(2*i+1); e.HTTP.Path != want {
			t.Fatalf("entry %d is of %s, want %s", i, e.HTTP.Path, want)
		}
	}
	want := &accesslog.Entry{
		Duration: 7 * time.Millisecond, Chain: "9080", Listener: "0.0.0.0_9080",
		Route: "default", Cluster: reviews, ClusterStat: reviews + ";",
		Source: netip.MustParseAddrPort("10.9.0.1:40000"), Destination: netip.MustParseAddrPort("10.96.0.7:9080"),
		Upstream: netip.MustParseAddrPort("10.0.0.1:9080"), Connection: 5,
		Received: 30, Sent: 1900, UpstreamReceived: 80, UpstreamSent: 70,
		HTTP: &accesslog.HTTP{
			Protocol: "HTTP/1.1", Scheme: "http", Method: http.MethodGet, Authority: "reviews:9080", Path: "/a%2Fb?c=1", Status: 200,
			Received: 100, Sent: 2000, Attempts: 2, Connected: -1, Answered: -1, Ended: 3 * time.Millisecond,
			RequestHeaders: map[string]string{"user-agent": "curl/8"}, ResponseHeaders: map[string]string{"x-kind": `a "kind"`},
		},
	}
	if diff := cmp.Diff(want, c.written.entries[0], cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.IgnoreFields(accesslog.Entry{}, "Start")); diff != "" {
		t.Errorf("the first entry (-want +got):\n%s", diff)
	}
	if len(c.written.logs[0]) != 1 || c.written.logs[0][0] != log {
		t.Errorf("it is for %v", c.written.logs[0])
	}
}

func TestWhatAnAbsentBridgeCannotBeToldIsCounted(t *testing.T) {
	w, _ := loggedWorld(t)
	const requests = 2 * (maxEntries + 3000)
	c := newCounted(t, w)
	for _, body := range runProgram(t, Rule{Profile: translate.Mesh(), Logged: []LoggedChain{{Key: "9080"}}}, requests, requests, 0) {
		if code := c.post(t, body); code != http.StatusNoContent {
			t.Fatalf("%d: %.500s", code, body)
		}
	}
	if len(c.written.entries) != maxEntries {
		t.Errorf("%d entries, want %d", len(c.written.entries), maxEntries)
	}
	if got := c.value(t, "meshbridge_request_entries_lost_total"); got != 3000 {
		t.Errorf("%g entries are lost, want 3000", got)
	}
	if got := c.value(t, "istio_requests_total"); got != requests {
		t.Errorf("%g requests are counted, want all %d", got, requests)
	}
}

func TestAnEntryTellsWhatNginxSaysInEnvoysTerms(t *testing.T) {
	for name, c := range map[string]struct {
		series string
		texts  map[column]string
		check  func(e *accesslog.Entry) any
		want   any
	}{
		"a whole URL": {
			outbound,
			map[column]string{columnRequest: "GET http://a.com/b?c HTTP/1.1"},
			func(e *accesslog.Entry) any { return e.HTTP.Path }, "/b?c",
		},
		"a URL without path": {
			outbound,
			map[column]string{columnRequest: "GET http://a.com HTTP/1.1"},
			func(e *accesslog.Entry) any { return e.HTTP.Path }, "/",
		},
		"a path that looks like one": {
			outbound,
			map[column]string{columnRequest: "GET /?u=http://a.com/b HTTP/1.1"},
			func(e *accesslog.Entry) any { return e.HTTP.Path }, "/?u=http://a.com/b",
		},
		"HTTP/2": {
			outbound,
			map[column]string{columnRequest: "POST / HTTP/2.0"},
			func(e *accesslog.Entry) any { return e.HTTP.Method + e.HTTP.Protocol }, "POSTHTTP/2",
		},
		"no request": {
			outbound, nil,
			func(e *accesslog.Entry) any { return e.HTTP.Method + e.HTTP.Path + e.HTTP.Protocol }, "",
		},
		"one endpoint": {
			outbound,
			map[column]string{columnConnected: "0.001", columnAnswered: "0.020", columnEnded: "0.021"},
			func(e *accesslog.Entry) any {
				return []any{e.HTTP.Attempts, e.HTTP.Connected, e.HTTP.Answered, e.HTTP.Ended}
			},
			[]any{1, time.Millisecond, 20 * time.Millisecond, 21 * time.Millisecond},
		},
		"none that was connected to": {
			outbound,
			map[column]string{columnConnected: "-, - : -", columnAnswered: "-, - : -", columnEnded: "0.001, 0.000 : 0.002"},
			func(e *accesslog.Entry) any {
				return []any{e.HTTP.Attempts, e.HTTP.Connected, e.HTTP.Answered, e.HTTP.Ended}
			},
			[]any{3, time.Duration(-1), time.Duration(-1), 2 * time.Millisecond},
		},
		"none, and no more to try": { // as APISIX has it
			outbound,
			map[column]string{columnConnected: "-, - : ", columnAnswered: "-, - : ", columnEnded: "0.001, 0.002 : ", columnUpstreamSent: "0, 7 : "},
			func(e *accesslog.Entry) any {
				return []any{e.HTTP.Attempts, e.HTTP.Connected, e.HTTP.Ended, e.UpstreamSent}
			},
			[]any{2, time.Duration(-1), 2 * time.Millisecond, int64(7)},
		},
		"no endpoint": {
			`"route": "r.404", "status": 404`, nil,
			func(e *accesslog.Entry) any {
				return []any{e.HTTP.Attempts, e.HTTP.Answered, e.Upstream.IsValid(), e.Flags, e.Route, e.Cluster, e.HTTP.Status}
			},
			[]any{0, time.Duration(-1), false, "NR", "", "", 404},
		},
		"a client that did not wait": {
			outbound[:len(outbound)-3] + "499", nil,
			func(e *accesslog.Entry) any { return []any{e.HTTP.Status, e.Flags} },
			[]any{0, "DC"},
		},
		"gRPC": {
			outbound + `, "grpc": "14"`, nil,
			func(e *accesslog.Entry) any { return e.HTTP.GRPCStatus }, "14",
		},
		"the messages of gRPC": {
			outbound + `, "grpc": "0"`,
			map[column]string{columnReceived: "150"},
			func(e *accesslog.Entry) any { return e.Received }, int64(150),
		},
		"gRPC without a status": {
			outbound + `, "grpc": "-"`, nil,
			func(e *accesslog.Entry) any { return e.HTTP.GRPCStatus }, "",
		},
		"a client without anything in front": {
			outbound,
			map[column]string{columnClient: "10.0.0.8", columnClientPort: "999", columnPeer: "10.0.0.8", columnPeerPort: "999"},
			func(e *accesslog.Entry) any { return e.Source.String() + " " + e.Direct.String() }, "10.0.0.8:999 invalid AddrPort",
		},
		"a client behind a load balancer": {
			outbound,
			map[column]string{columnClient: "192.0.2.7", columnClientPort: "", columnPeer: "10.0.0.8", columnPeerPort: "999"},
			func(e *accesslog.Entry) any { return e.Source.String() + " " + e.Direct.String() }, "192.0.2.7:0 10.0.0.8:999",
		},
		"a client that a PROXY protocol header tells": {
			outbound,
			map[column]string{columnTold: "::ffff:192.0.2.7", columnToldPort: "5", columnClient: "10.0.0.8", columnClientPort: "999"},
			func(e *accesslog.Entry) any { return e.Source.String() }, "192.0.2.7:5",
		},
		"a client on a socket of Unix": {
			outbound,
			map[column]string{columnClient: "unix:"},
			func(e *accesslog.Entry) any { return e.Source.IsValid() }, false,
		},
		"an address before it was redirected": {
			outbound,
			map[column]string{columnDestination: "10.96.0.1:80", columnServer: "10.9.0.1", columnServerPort: "9080"},
			func(e *accesslog.Entry) any { return e.Destination.String() }, "10.96.0.1:80",
		},
		"an address that was not redirected": {
			outbound,
			map[column]string{columnServer: "fd00::1", columnServerPort: "9080"},
			func(e *accesslog.Entry) any { return e.Destination.String() }, "[fd00::1]:9080",
		},
		"a body that is shorter than announced": {
			outbound,
			map[column]string{columnReceived: "120", columnReceivedBody: "1000"},
			func(e *accesslog.Entry) any { return e.Received }, int64(120),
		},
		"what would end a line": {
			outbound,
			map[column]string{columnAuthority: "a\nb\x00c\td"},
			func(e *accesslog.Entry) any { return e.HTTP.Authority }, "a\ufffdb\ufffdc\td",
		},
		"numbers that are none": {
			outbound,
			map[column]string{columnDuration: "99999999999999999999", columnSent: "-5", columnStart: "NaN", columnConnection: "x", columnEnded: "1e99"},
			func(e *accesslog.Entry) any {
				return []any{e.Duration, e.HTTP.Sent, e.Connection, e.HTTP.Ended, time.Since(e.Start) < time.Hour}
			},
			[]any{time.Duration(0), int64(0), uint64(0), time.Duration(-1), true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := loggedWorld(t)
			counted := newCounted(t, w)
			texts := map[column]string{columnSeries: "1", columnStart: strconv.FormatInt(time.Now().Unix(), 10)}
			maps.Copy(texts, c.texts)
			if code := counted.post(t, reportOf("1", 1, 1, c.series)+"\n"+entryOf(texts)); code != http.StatusNoContent {
				t.Fatal(code)
			}
			if len(counted.written.entries) != 1 {
				t.Fatalf("%d entries", len(counted.written.entries))
			}
			if diff := cmp.Diff(c.want, c.check(counted.written.entries[0])); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestEntriesTellOfTheEndpointBehindAnOverlayAddress(t *testing.T) {
	w, _ := loggedWorld(t)
	at := netip.MustParseAddr("127.96.0.1")
	for name, c := range map[string]struct {
		endpoint translate.OverlayEndpoint
		want     string
	}{
		"an address":               {translate.OverlayEndpoint{Address: at, Target: netip.MustParseAddrPort("10.0.0.1:9080")}, "10.0.0.1:9080"},
		"where the client went to": {translate.OverlayEndpoint{Address: at, OriginalDestination: true}, "192.0.2.9:80"},
		"a name":                   {translate.OverlayEndpoint{Address: at, Name: "a.com:80"}, "invalid AddrPort"},
	} {
		w.overlay[at] = &c.endpoint
		counted := newCounted(t, w)
		counted.post(t, reportOf("1", 1, 1, strings.Replace(outbound, "10.0.0.1:9080", "127.96.0.1:15011", 1))+"\n"+
			entryOf(map[column]string{columnSeries: "1", columnDestination: "192.0.2.9", columnDestinationPort: "80"}))
		if got := counted.written.entries[0].Upstream.String(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestAnInboundEntryTellsWhoseCertificatesWereShown(t *testing.T) {
	w, log := loggedWorld(t)
	w.chains["i:8080:tls"].AccessLogs, w.chains["i:8080:tls"].TLS = []*accesslog.Log{log}, true
	c := newCounted(t, w)
	const client = "spiffe://cluster.local/ns/front/sa/web"
	c.post(t, reportOf("1", 1, 1, `"route": "r.in", "upstream": "u.in", "node": "10.0.0.9:8080", "status": 200, "principal": "`+client+`"`)+"\n"+
		entryOf(map[column]string{columnSeries: "1", columnScheme: "http", columnServerName: "outbound_.80_._.web"}))
	e := c.written.entries[0]
	if !e.MutualTLS || e.Principal != client || e.OwnPrincipal != w.principal || e.HTTP.Scheme != "https" || e.ServerName != "outbound_.80_._.web" || e.Route != "default" {
		t.Errorf("%+v %+v", e, e.HTTP)
	}
}

func TestLoggingAndCountingDoNotNeedEachOther(t *testing.T) {
	w, log := loggedWorld(t)
	w.chains["uncounted"].AccessLogs = []*accesslog.Log{log}
	entry := "\n" + entryOf(map[column]string{columnSeries: "1"})
	for name, c := range map[string]struct {
		config          Config
		route           string
		counted, logged int
	}{
		"a chain that is logged":         {Config{}, "r.uncounted", 0, 1},
		"a chain that is counted":        {Config{}, "r.in", 1, 0},
		"a chain that is both":           {Config{}, "r.out", 1, 1},
		"metrics are off":                {Config{Uncounted: true}, "r.out", 0, 1},
		"metrics are on for all":         {Config{Always: true}, "r.uncounted", 1, 1},
		"a route that is gone":           {Config{}, "r.gone", 0, 0},
		"no route, on a chain":           {Config{}, chainPrefix + "9080", 1, 1},
		"no route, and no way to tell":   {Config{}, "", 0, 0},
		"metrics off, and nothing to do": {Config{Uncounted: true}, "r.in", 0, 0},
	} {
		c.config.World = w
		counted := newCountedBy(t, c.config)
		counted.post(t, reportOf("1", 1, 1, `"route": "`+c.route+`", "status": 200`)+entry)
		if got := counted.value(t, "istio_requests_total"); got != float64(c.counted) {
			t.Errorf("%s: %g are counted", name, got)
		}
		if got := len(counted.written.entries); got != c.logged {
			t.Errorf("%s: %d are logged", name, got)
		}
		unattributed := counted.value(t, "meshbridge_request_entries_unattributed_total")
		if want := c.route == "" || c.route == "r.gone"; (unattributed == 1) != want {
			t.Errorf("%s: %g are unattributed", name, unattributed)
		}
	}
}

func TestALogThatIsAddedIsSeenAtOnce(t *testing.T) {
	w, log := loggedWorld(t)
	c := newCounted(t, w)
	body := `"route": "r.uncounted", "upstream": "u.reviews", "status": 200`
	entry := "\n" + entryOf(map[column]string{columnSeries: "1"})
	c.post(t, reportOf("1", 1, 1, body)+entry)
	chain := *w.chains["uncounted"]
	chain.AccessLogs = []*accesslog.Log{log}
	w.chains["uncounted"] = &chain
	c.post(t, reportOf("1", 2, 1, body)+entry)
	chain = *w.chains["uncounted"]
	chain.AccessLogs = []*accesslog.Log{{Path: "/other"}, log}
	w.chains["uncounted"] = &chain
	c.post(t, reportOf("1", 3, 1, body)+entry)
	if len(c.written.entries) != 2 || len(c.written.logs[0]) != 1 || len(c.written.logs[1]) != 2 {
		t.Errorf("%d entries, for %v", len(c.written.entries), c.written.logs)
	}
}

func TestARepeatedReportIsLoggedOnce(t *testing.T) {
	w, _ := loggedWorld(t)
	c := newCounted(t, w)
	for range 3 {
		c.post(t, reportOf("1", 1, 1, outbound)+"\n"+entryOf(map[column]string{columnSeries: "1"}))
	}
	if len(c.written.entries) != 1 {
		t.Errorf("%d entries", len(c.written.entries))
	}
}

func TestAnEntryThatIsNotUnderstoodIsLostAlone(t *testing.T) {
	good := entryOf(map[column]string{columnSeries: "1"}, "a")
	for name, line := range map[string]string{
		"no JSON":                 "hello",
		"nothing":                 "",
		"no texts":                "[1, 2]",
		"too few texts":           `["1", "2"]`,
		"no such series":          entryOf(map[column]string{columnSeries: "2"}, "a"),
		"series 0":                entryOf(map[column]string{columnSeries: "0"}, "a"),
		"a header too many":       entryOf(map[column]string{columnSeries: "1"}, "a", "b"),
		"a header too few":        entryOf(map[column]string{columnSeries: "1"}),
		"a text that is too long": entryOf(map[column]string{columnSeries: "1", columnRequest: strings.Repeat("a", utf8Growth*maxEntryText+1)}, "a"),
	} {
		w, _ := loggedWorld(t)
		c := newCounted(t, w)
		if code := c.post(t, reportOf("1", 1, 3, outbound+`, "headers": ["user-agent"]`)+"\n"+good+"\n"+line+"\n"+good); code != http.StatusNoContent {
			t.Errorf("%s: %d", name, code)
		}
		if got := c.value(t, "istio_requests_total"); got != 3 {
			t.Errorf("%s: %g requests are counted", name, got)
		}
		if got := c.value(t, "meshbridge_request_entries_lost_total"); got != 1 || len(c.written.entries) != 2 {
			t.Errorf("%s: %g lost, %d logged", name, got, len(c.written.entries))
		}
	}
	w, _ := loggedWorld(t)
	c := newCounted(t, w)
	c.post(t, reportOf("1", 1, 1, outbound+`, "headers": ["user-agent"]`)+strings.Repeat("\n"+good, maxEntries+5))
	if got := c.value(t, "meshbridge_request_entries_lost_total"); got != 5 || len(c.written.entries) != maxEntries {
		t.Errorf("of too many: %g lost, %d logged", got, len(c.written.entries))
	}
}

// BenchmarkEntries is a report of as many entries as are reported at once.
func BenchmarkEntries(b *testing.B) {
	w, _ := loggedWorld(b)
	c := newCounted(b, w)
	line := entryOf(map[column]string{
		columnSeries: "1", columnStart: "1763846000.25", columnDuration: "12", columnRequest: "GET /productpage?u=normal HTTP/1.1",
		columnAuthority: "reviews:9080", columnScheme: "http", columnClient: "10.9.0.1", columnClientPort: "40000",
		columnPeer: "10.9.0.1", columnPeerPort: "40000", columnDestination: "10.96.0.7:9080", columnServer: "10.9.0.1", columnServerPort: "9080",
		columnReceived: "230", columnSent: "1200", columnSentBody: "1000", columnConnected: "0.001", columnAnswered: "0.020", columnEnded: "0.021",
		columnUpstreamReceived: "1200", columnUpstreamSent: "300", columnConnection: "12345",
	}, "curl/8.0.1", "0b0b8f30-6f4b-9c1d-8f55-3a2e4b0f7f5e", "10.9.0.1")
	entries := strings.Repeat("\n"+strings.ReplaceAll(line, "/", `\/`), manyEntries)
	for n := 1; b.Loop(); n++ {
		c.post(b, reportOf("1", n, manyEntries, outbound+`, "headers": ["user-agent", "x-request-id", "x-forwarded-for"]`)+entries)
		if len(c.written.entries) != manyEntries {
			b.Fatal(len(c.written.entries))
		}
		c.written.entries, c.written.logs = c.written.entries[:0], c.written.logs[:0]
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/manyEntries, "ns/entry")
}
