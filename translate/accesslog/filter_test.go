package accesslog

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func fileWith(filter string) string {
	return `
name: f
filter: ` + filter + `
typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}
`
}

func cel(expression string) string {
	return `{extension_filter: {name: cel, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter, expression: ` + strconv.Quote(expression) + `}}}`
}

// failedRequest is one whose endpoint was not reached.
func failedRequest() *Entry {
	e := request()
	e.Flags, e.HTTP.Status, e.Upstream, e.Duration = "UF,URX", 503, netip.AddrPort{}, 0
	return e
}

func grpcRequest() *Entry {
	e := request()
	e.HTTP.Protocol, e.HTTP.GRPCStatus, e.HTTP.Status, e.MutualTLS = "HTTP/2", "0", 200, true
	return e
}

func TestFilters(t *testing.T) {
	status := func(op, value string) string {
		return "{status_code_filter: {comparison: {op: " + op + ", value: {default_value: " + value + ", runtime_key: k}}}}"
	}
	for _, c := range []struct {
		filter string
		// wants lists which of the entries are logged.
		wants string
		// partly tells that a part cannot be evaluated.
		partly bool
	}{
		{filter: status("GE", "500"), wants: "failed"},
		{filter: status("LE", "200"), wants: "grpc connection"},
		{filter: status("EQ", "0"), wants: "connection"},
		{filter: status("NE", "418"), wants: "failed grpc connection"},
		{filter: "{duration_filter: {comparison: {op: GE, value: {default_value: 25, runtime_key: k}}}}", wants: "request grpc connection"},
		{filter: "{not_health_check_filter: {}}", wants: "request failed grpc connection"},
		{filter: "{response_flag_filter: {flags: [UO, URX]}}", wants: "failed"},
		{filter: "{response_flag_filter: {}}", wants: "failed"},
		{filter: "{grpc_status_filter: {statuses: [OK, UNAVAILABLE]}}", wants: "failed grpc"},
		{filter: "{grpc_status_filter: {statuses: [OK, UNAVAILABLE], exclude: true}}", wants: "request connection"},
		{filter: "{log_type_filter: {types: [DownstreamEnd]}}", wants: "request failed grpc"},
		{filter: "{log_type_filter: {types: [TcpConnectionEnd], exclude: true}}", wants: "request failed grpc"},
		{filter: "{header_filter: {header: {name: User-Agent, present_match: true}}}", wants: "request failed grpc"},
		{filter: "{header_filter: {header: {name: user-agent, present_match: true, invert_match: true}}}", wants: "connection"},
		{filter: "{header_filter: {header: {name: user-agent, string_match: {prefix: CURL, ignore_case: true}}}}", wants: "request failed grpc"},
		{filter: "{header_filter: {header: {name: user-agent, string_match: {safe_regex: {regex: curl}}}}}", wants: ""},
		{filter: "{header_filter: {header: {name: user-agent, string_match: {exact: x}, invert_match: true}}}", wants: "request failed grpc"},
		{filter: "{header_filter: {header: {name: ':path', contains_match: '418'}}}", wants: "request failed grpc"},
		{filter: "{header_filter: {header: {name: x-none, string_match: {exact: ''}, treat_missing_header_as_empty: true}}}", wants: "request failed grpc connection"},
		{filter: "{header_filter: {header: {name: x-n, range_match: {start: 1, end: 3}}}}", wants: ""},
		{filter: "{and_filter: {filters: [" + status("GE", "400") + ", " + status("LE", "499") + "]}}", wants: "request"},
		{filter: "{or_filter: {filters: [" + status("EQ", "0") + ", " + status("GE", "500") + "]}}", wants: "failed connection"},
		{filter: "{runtime_filter: {runtime_key: k}}", wants: "request failed grpc connection", partly: true},
		{filter: "{metadata_filter: {}}", wants: "request failed grpc connection", partly: true},
		{filter: "{and_filter: {filters: [{traceable_filter: {}}, " + status("GE", "500") + "]}}", wants: "failed", partly: true},
		{filter: "{or_filter: {filters: [{traceable_filter: {}}, " + status("GE", "500") + "]}}", wants: "request failed grpc connection", partly: true},
		{filter: "{header_filter: {header: {name: a, string_match: {safe_regex: {regex: '('}}}}}", wants: "request failed grpc connection", partly: true},
	} {
		t.Run(c.filter, func(t *testing.T) { wants(t, c.filter, c.wants, c.partly) })
	}
}

func wants(t *testing.T, filter, entries string, partly bool) {
	t.Helper()
	var problems []string
	if partly {
		problems = []string{partOfFilter}
	}
	log := parse(t, fileWith(filter), false, problems...)
	for name, e := range map[string]*Entry{"request": request(), "failed": failedRequest(), "grpc": grpcRequest(), "connection": connection()} {
		if got, want := log.Wants(e), slices.Contains(strings.Fields(entries), name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestExpressions(t *testing.T) {
	all := "request failed grpc connection"
	for _, c := range []struct{ expression, wants string }{
		{"response.code >= 400", "request failed"},
		{"response.code == 200 || response.code == 503", "failed grpc"},
		{"response.code in [200, 0x1F7]", "failed grpc"},
		{"!has(response.code) || response.code >= 500", "failed connection"},
		{"response.code < 500 && connection.mtls", "grpc"},
		{"!(connection.mtls)", "request failed"},
		{"connection.mtls == true", "grpc connection"},
		{"request.method == 'GET' && request.url_path.contains(\"418\")", "request failed grpc"},
		{"request.path.endsWith('?a=b%20c') && request.query == 'a=b%20c'", "request failed grpc"},
		{"request.host.startsWith('httpbin') && request.scheme != 'https'", "request failed grpc"},
		{`request.url_path.matches(r"^/status/\d+$")`, "request failed grpc"},
		{"request.headers['User-Agent'].contains('curl')", "request failed grpc"},
		{"'x-none' in request.headers", ""},
		{"!('x-none' in request.headers)", all},
		{"request.headers['x-none'] == 'a'", ""},
		{"!(request.headers['x-none'] == 'a')", ""}, // an error does not hold, whatever is made of it
		{"request.headers['x-none'] == 'a' || response.code == 200", "grpc"},
		{"request.headers['x-none'] == 'a' && false || true", all},
		{"response.flags != 0", "failed"},
		{"response.grpc_status == 0", "grpc"},
		{"request.protocol == 'HTTP/2'", "grpc"},
		{"request.useragent != '' && has(request.id) && !has(request.referer)", "request failed grpc"},
		{"destination.port == 5432", "connection"},
		{"source.address == '10.44.1.23:46520'", "request failed grpc"},
		{"upstream.address.startsWith('10.44.1.27:')", "request grpc"},
		{"connection.uri_san_peer_certificate == 'spiffe://cluster.local/ns/foo/sa/sleep'", "connection"},
		{"xds.cluster_name.contains('|8000||')", "request failed grpc"},
		{"response.code > -1", "request failed grpc"},
		{"'a\\'\\n' == \"a'\\n\"", all},
		{"true", all},
		{"[1, 2] == [1]", "?"},
		{"'' in [0]", "?"},
		{"request.method in ['GET', 1]", "?"},
		{"request.method in ['GET', 'PUT',]", "?"},
		{"request.method in []", ""},
		{strings.Repeat("[", 100_000), "?"},
		{"response.code == '200'", "?"},
		{"response.code >= 400.0", "?"},
		{"response.code == 200u", "?"},
		{"response.code", "?"},
		{"request.path.size() > 3", "?"},
		{"request.time > timestamp('2026-01-01T00:00:00Z')", "?"},
		{"request.foo == 'a'", "?"},
		{"response.code + 1 > 3", "?"},
		{"response.code >= 400 ? true : false", "?"},
		{"response.code >= ", "?"},
		{"(response.code >= 400", "?"},
		{"response.code >= 400)", "?"},
		{"metadata.filter_metadata['a']['b'] == 'c'", "?"},
		{"request.headers == 'a'", "?"},
		{"request.url_path.matches('(')", "?"},
		{"'a", "?"},
		{"", "?"},
		{strings.Repeat("!(", 1000) + "true" + strings.Repeat(")", 1000), "?"},
	} {
		t.Run(c.expression, func(t *testing.T) {
			if c.wants == "?" {
				wants(t, cel(c.expression), all, true)
			} else {
				wants(t, cel(c.expression), c.wants, false)
			}
		})
	}
}

// Entries must have the headers that filters ask for, and no others.
func TestHeadersOfFiltersAreAskedFor(t *testing.T) {
	log := parse(t, fileWith(cel("request.headers['X-A'] == 'a' && response.headers['x-b'] == 'b' && 'x-c' in request.headers")), false)
	if !slices.Contains(log.RequestHeaders, "x-a") || !slices.Contains(log.RequestHeaders, "x-c") || !slices.Equal(log.ResponseHeaders, []string{"x-b"}) {
		t.Errorf("asks for %q and %q", log.RequestHeaders, log.ResponseHeaders)
	}
	log = parse(t, fileWith(cel("request.headers['x-a'].size() == 1")), false, partOfFilter)
	if slices.Contains(log.RequestHeaders, "x-a") {
		t.Errorf("asks for %q", log.RequestHeaders)
	}
}
