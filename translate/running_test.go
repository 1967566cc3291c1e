package translate_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/prototext"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/translate/difftest"
)

var running = flag.Int("running", 4000, "how many requests are sent to a running APISIX, where APISIX_URL and APISIX_ETCD say where it is")

// TestARunningAPISIXDoesWhatTheEvaluatorSays gives random configurations and requests to an APISIX, with
// endpoints on loopback, and compares with the model on which the other tests rely. The APISIX must
// listen on port 80 (the port of the generated listener), with one worker process, and have nothing else
// configured. APISIX_ETCD is the HTTP address of its etcd, to which the test writes under /apisix.
func TestARunningAPISIXDoesWhatTheEvaluatorSays(t *testing.T) {
	address, etcd := os.Getenv("APISIX_URL"), os.Getenv("APISIX_ETCD")
	if address == "" || etcd == "" {
		t.Skip("APISIX_URL and APISIX_ETCD name no running APISIX")
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	r := &runningAPISIX{tb: t, address: u.Host, etcd: etcd, endpoints: newEndpoints(t), objects: map[string][]byte{}, counts: map[string]int{}}
	t.Cleanup(func() { r.serve(nil) })
	const requests, aimed = 20, 6 // for each route
	for i, sent := uint64(0), 0; sent < *running; i++ {
		g := &generator{Rand: newRandom(ofRunning, i), tb: t}
		configuration := g.world()
		configuration.profile = translate.Gateway()
		for _, c := range configuration.clusters {
			r.endpoints.take(c)
		}
		w := generatedWorld(t, configuration)
		state, _, err := translate.Translate(translate.Options{Profile: configuration.profile}, generatedSnapshot(t, configuration), translate.Inputs{})
		if err != nil {
			t.Fatal(err)
		}
		r.serve(slices.Collect(state.Objects()))
		for request := range w.Requests(g, requests, aimed) {
			sent++
			if why := r.compare(w, g, request); why != "" {
				t.Errorf("configuration %d: %s", i, why)
				if r.counts["differ"]++; r.counts["differ"] == 1 {
					t.Log(prototext.Format(configuration.manager), prototext.Format(configuration.config))
				}
				if r.counts["differ"] > 30 {
					t.Fatal("and more", r.counts)
				}
			}
		}
	}
	t.Log(r.counts)
}

// runningAPISIX is an APISIX and its etcd.
type runningAPISIX struct {
	tb            testing.TB
	address, etcd string
	endpoints     *endpoints
	objects       map[string][]byte // in etcd, by key
	generation    int
	counts        map[string]int
}

// serve makes APISIX serve these objects and no others, and returns when it does.
func (r *runningAPISIX) serve(objects []apisix.Object) {
	r.tb.Helper()
	r.generation++
	name := "running-" + strconv.Itoa(r.generation)
	next := map[string][]byte{}
	for _, o := range objects {
		next[o.Key()] = o.Value
	}
	probe := map[string]any{
		"upstreams/" + name:      map[string]any{"type": "roundrobin", "nodes": []any{map[string]any{"host": "127.0.0.1", "port": r.endpoints.ports["c0"], "weight": 1}}},
		"plugin_configs/" + name: map[string]any{"id": name, "plugins": map[string]any{"response-rewrite": map[string]any{"headers": map[string]any{"set": map[string]any{"x-probe": name}}}}},
		"routes/running":         map[string]any{"uri": "/*", "hosts": []any{"running.invalid"}, "upstream_id": name, "plugin_config_id": name},
	}
	for key, value := range probe {
		raw, err := json.Marshal(value)
		if err != nil {
			r.tb.Fatal(err)
		}
		next[key] = raw
	}
	for _, kind := range []string{"upstreams/", "plugin_configs/", "routes/"} {
		for _, key := range slices.Sorted(maps.Keys(next)) {
			if strings.HasPrefix(key, kind) && key != "routes/running" && !bytes.Equal(r.objects[key], next[key]) {
				r.call("/v3/kv/put", map[string]any{"key": []byte("/apisix/" + key), "value": next[key]})
			}
		}
	}
	// What is no longer referred to goes last but for the route whose turn tells that all is there.
	for _, kind := range []string{"routes/", "plugin_configs/", "upstreams/"} {
		for _, key := range slices.Sorted(maps.Keys(r.objects)) {
			if strings.HasPrefix(key, kind) && kind == "routes/" && next[key] == nil {
				r.call("/v3/kv/deleterange", map[string]any{"key": []byte("/apisix/" + key)})
			}
		}
	}
	r.call("/v3/kv/put", map[string]any{"key": []byte("/apisix/routes/running"), "value": next["routes/running"]})
	for key := range r.objects {
		if !strings.HasPrefix(key, "routes/") && next[key] == nil {
			r.call("/v3/kv/deleterange", map[string]any{"key": []byte("/apisix/" + key)})
		}
	}
	r.objects = next
	for deadline := time.Now().Add(20 * time.Second); ; {
		answer, err := r.send(apisix.Request{Host: "running.invalid"})
		if err == nil && answer.StatusCode == http.StatusOK && answer.Header.Get("X-Probe") == name {
			return
		}
		if time.Now().After(deadline) {
			r.tb.Fatal("APISIX does not take the configuration: ", answer, err)
		}
	}
}

func (r *runningAPISIX) call(path string, request map[string]any) {
	r.tb.Helper()
	raw, err := json.Marshal(request)
	if err != nil {
		r.tb.Fatal(err)
	}
	answer, err := http.Post(r.etcd+path, "application/json", bytes.NewReader(raw))
	if err != nil {
		r.tb.Fatal(err)
	}
	defer answer.Body.Close()
	if body, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK {
		r.tb.Fatalf("%s: %s", path, body)
	}
}

// answered is a response with its body.
type answered struct {
	*http.Response
	body string
}

// send writes the request as it is, malformed ones too.
func (r *runningAPISIX) send(request apisix.Request) (answered, error) {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(context.WithoutCancel(r.tb.Context()), "tcp", r.address)
	if err != nil {
		return answered{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return answered{}, err
	}
	method, target := request.Method, request.URI
	if method == "" {
		method, target = http.MethodGet, "/"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, request.Host)
	for _, name := range slices.Sorted(maps.Keys(request.Headers)) {
		for _, value := range request.Headers[name] {
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	body := ""
	if kind := strings.Join(request.Headers["content-type"], ""); method == http.MethodPost {
		if body = "\x00\x00\x00\x00\x00"; strings.HasPrefix(kind, "application/grpc-web-text") {
			body = "AAAAAAA="
		}
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	fmt.Fprintf(&b, "Connection: close\r\n\r\n%s", body)
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return answered{}, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return answered{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answered{answer, string(text)}, err
}

// compare sends a request, and returns in what APISIX differs from its model; empty where it does not.
// A random choice is right where the model can make it.
func (r *runningAPISIX) compare(w *difftest.World, g *generator, request apisix.Request) string {
	const choices = 96
	id, given := r.endpoints.expect(request.Response)
	request.Headers, request.RemoteAddr, request.Response = maps.Clone(request.Headers), "127.0.0.1", given
	request.Headers["x-request-number"] = []string{id}
	request.Vars = maps.Clone(request.Vars)
	var decisions []apisix.Decision
	for range choices {
		request.Vars["request_id"] = requestID(g)
		d := w.APISIX().Evaluate(request)
		tooSlow := d.Delay > 0 || d.Upstream != nil && (d.Upstream.Timeout != nil && d.Upstream.Timeout.Read < 1 || d.Route.Timeout != nil && d.Route.Timeout.Read < 1)
		if tooSlow || len(request.URI) > 6000 || len(d.Notes) > 0 && d.AnsweredBy != "nginx" {
			r.counts["skipped"]++
			return ""
		}
		decisions = append(decisions, d)
	}
	answer, err := r.send(request)
	if err != nil {
		return fmt.Sprintf("%s %s%s: %v", request.Method, request.Host, request.URI, err)
	}
	seen := r.endpoints.forget(id)
	if answer.body == "400 Bad Request: malformed Host header" || answer.StatusCode == http.StatusBadGateway && strings.Contains(request.Host, "@") {
		// Servers in Go refuse the Host.
		r.counts["skipped"]++
		return ""
	}
	var differences []string
	for _, d := range decisions {
		difference := r.difference(w, d, answer, seen)
		if difference == "" {
			r.counts["equal"]++
			r.counts["answered by "+d.AnsweredBy]++
			return ""
		}
		if !slices.Contains(differences, difference) {
			differences = append(differences, difference)
		}
	}
	route, _ := json.Marshal(decisions[0].Route)
	return fmt.Sprintf("%s %s%s %v\n\t%d %v\n\t%s\n\troute %s", request.Method, request.Host, request.URI, request.Headers,
		answer.StatusCode, answer.Header, strings.Join(differences, "\n\tor "), route)
}

// requestID is one that makes each of the random choices, the rare ones too.
func requestID(g *generator) string {
	var id strings.Builder
	for range 4 {
		window := g.Uint32() >> 8
		if g.chance(40) {
			window >>= 20
		}
		fmt.Fprintf(&id, "%06x", window)
	}
	return id.String() + "00000000"
}

// difference is what the answer, and the request that an endpoint has seen, have that the model has not.
func (r *runningAPISIX) difference(w *difftest.World, d apisix.Decision, answer answered, copies []seenRequest) string {
	if d.Status != 0 {
		switch {
		case len(copies) > 0:
			return fmt.Sprintf("%d from %s, and it is forwarded to %s", d.Status, d.AnsweredBy, copies[0].cluster)
		case answer.StatusCode != d.Status:
			return fmt.Sprintf("%d from %s, and it is %d", d.Status, d.AnsweredBy, answer.StatusCode)
		case answer.Header.Get("Location") != d.Location:
			return fmt.Sprintf("location %q, and it is %q", d.Location, answer.Header.Get("Location"))
		case d.AnsweredBy == "fault-injection" && d.Body != answer.body && answer.Request.Method != http.MethodHead:
			return fmt.Sprintf("body %q, and it is %q", d.Body, answer.body)
		case d.AnsweredBy == "fault-injection" || d.AnsweredBy == "redirect":
			return differentHeaders("response", d.Response, answer.Header)
		}
		return ""
	}
	destinations := w.Destinations(d)
	i := slices.IndexFunc(copies, func(s seenRequest) bool { return slices.Contains(destinations, s.cluster) })
	if i < 0 {
		return fmt.Sprintf("forwarded to %v, and it is %d %q, after %v", destinations, answer.StatusCode, answer.body, copies)
	}
	switch seen := copies[i]; {
	case d.Upstream.PassHost != "node" && seen.host != d.Host:
		return fmt.Sprintf("host %q, and it is %q", d.Host, seen.host)
	case seen.target != d.URI:
		return fmt.Sprintf("target %q, and it is %q", d.URI, seen.target)
	}
	if difference := differentHeaders("request", d.Headers, copies[i].headers); difference != "" {
		return difference
	}
	return differentHeaders("response", d.Response, answer.Header)
}

// differentHeaders compares headers but for those that nginx and Go have of their own.
func differentHeaders(what string, model map[string][]string, got http.Header) string {
	have := map[string][]string{}
	for name, values := range got {
		have[strings.ToLower(name)] = values
	}
	names := map[string]bool{}
	for name := range model {
		names[name] = true
	}
	for name := range have {
		names[name] = true
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch name {
		case "server", "date", "connection", "content-length", "transfer-encoding", "content-type", "location", "host", "te", "trailer",
			"x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-request-id", "x-request-number",
			"set-cookie", "x-session", "x-session-2", "x-ratelimit-limit", "x-ratelimit-remaining", "apisix-plugins":
			continue
		}
		if a, b := canonical(model[name]), canonical(have[name]); a != b {
			out = append(out, fmt.Sprintf("%s header %s %q, and it is %q", what, name, a, b))
		}
	}
	return strings.Join(out, "; ")
}

// canonical is a list of values without the empty ones.
func canonical(lines []string) string {
	var out []string
	for value := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		if value = strings.Trim(value, " \t;"); value != "" {
			out = append(out, value)
		}
	}
	return strings.Join(out, ",")
}

// seenRequest is what an endpoint got.
type seenRequest struct {
	cluster, host, target string
	headers               http.Header
}

// endpoints are servers on loopback, one for each cluster.
type endpoints struct {
	ports map[string]int

	mu       sync.Mutex
	last     int
	response map[string]map[string][]string // by number of the request
	seen     map[string][]seenRequest
}

func newEndpoints(tb testing.TB) *endpoints {
	tb.Helper()
	e := &endpoints{ports: map[string]int{}, response: map[string]map[string][]string{}, seen: map[string][]seenRequest{}}
	for _, name := range clusterNames() {
		listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		protocols.SetUnencryptedHTTP2(true)
		server := &http.Server{Protocols: protocols, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { e.answer(name, w, q) })}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(listener)
		}()
		tb.Cleanup(func() {
			_ = server.Shutdown(context.Background())
			<-done
		})
		address, _ := listener.Addr().(*net.TCPAddr)
		e.ports[name] = address.Port
	}
	return e
}

func (e *endpoints) answer(cluster string, w http.ResponseWriter, q *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := q.Header.Get("X-Request-Number")
	if response, expected := e.response[id]; expected {
		maps.Copy(w.Header(), response)
		e.seen[id] = append(e.seen[id], seenRequest{cluster, q.Host, q.RequestURI, q.Header})
	}
	w.WriteHeader(http.StatusOK)
}

// expect gives a request a number, under which an endpoint answers with these headers; given is what of
// them a server can answer with.
func (e *endpoints) expect(response map[string][]string) (id string, given map[string][]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	id, given = strconv.Itoa(e.last), maps.Clone(response)
	delete(given, "server") // which nginx hides
	e.response[id] = given
	return id, given
}

// forget returns what endpoints have seen of the request. There may be copies.
func (e *endpoints) forget(id string) []seenRequest {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := e.seen[id]
	delete(e.seen, id)
	delete(e.response, id)
	return seen
}

// take points the endpoints of a cluster to its server.
func (e *endpoints) take(c *clusterpb.Cluster) {
	for _, locality := range c.GetLoadAssignment().GetEndpoints() {
		for _, endpoint := range locality.GetLbEndpoints() {
			address := endpoint.GetEndpoint().GetAddress().GetSocketAddress()
			address.Address = "127.0.0.1"
			address.PortSpecifier = &corepb.SocketAddress_PortValue{PortValue: uint32(e.ports[c.GetName()])}
		}
	}
}
