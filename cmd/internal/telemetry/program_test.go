package telemetry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

// programOf returns what APISIX is to run by a rule.
func programOf(t *testing.T, r Rule) string {
	t.Helper()
	o, err := r.Object()
	if err != nil {
		t.Fatal(err)
	}
	var value struct {
		Plugins map[string]struct {
			Phase     string
			Functions []string
		}
	}
	if err := json.Unmarshal(o.Value, &value); err != nil {
		t.Fatal(err)
	}
	plugin := value.Plugins["serverless-post-function"]
	if o.Kind != apisix.KindGlobalRule || plugin.Phase != "log" || len(plugin.Functions) != 1 {
		t.Fatalf("%s: %s", o.Key(), o.Value)
	}
	return plugin.Functions[0]
}

func TestTheProgramHasNoPlaceLeftToFillIn(t *testing.T) {
	for _, rule := range []Rule{
		{Profile: translate.Direct(0, 0)},
		{Profile: translate.Gateway(), Gateway: true},
		{Profile: translate.Mesh(), Logged: []LoggedChain{{Key: `x"\`, RequestHeaders: []string{"user-agent"}}}},
	} {
		rule.Address = netip.MustParseAddrPort("127.0.0.1:15099")
		if text := programOf(t, rule); regexp.MustCompile(`@[A-Z]+@`).MatchString(text) || !strings.Contains(text, "http://127.0.0.1:15099/log") {
			t.Error(text)
		}
	}
}

// stand is what the program has of nginx and APISIX. Timers fire after so many requests, and the bridge is away for
// so many reports.
const stand = `
local program, requests, every, away = ...
local timers, time, status, posted = {}, 0, 200, {}
local vars = {}
ngx = {
  status = 200, var = vars, ERR = 4, log = function() end,
  now = function() return time end, req = {start_time = function() return time - 0.007 end},
  worker = {pid = function() return 17 end, exiting = function() return ENDING end},
  timer = {at = function(_, f) timers[#timers + 1] = f; return true end},
}
local function encode(v)
  if type(v) == "number" then return string.format("%.14g", v) end
  if type(v) == "string" then return string.format("%q", v):gsub("\\\n", "\\n") end
  local out = {}
  if #v > 0 then
    for i, e in ipairs(v) do out[i] = encode(e) end
    return "[" .. table.concat(out, ",") .. "]"
  end
  for k, e in pairs(v) do out[#out + 1] = encode(k) .. ":" .. encode(e) end
  return "{" .. table.concat(out, ",") .. "}"
end
package.loaded["cjson.safe"] = {encode = encode}
package.loaded["resty.http"] = {new = function() return {
  set_timeout = function() end,
  request_uri = function(_, _, options)
    if away > 0 then away = away - 1; return nil, "connection refused" end
    posted[#posted + 1] = options.body
    return {status = 204}
  end,
} end}
local run = assert(loadstring(program))()
local function fire()
  local due = timers
  timers = {}
  for _, f in ipairs(due) do f() end
end
for i = 1, requests do
  vars.request_length, vars.bytes_sent = "100", "2000"
  vars.http_x_envoy_peer_metadata_id, vars.http_x_envoy_peer_metadata = "made-up-" .. i, "eA=="
  local inbound = i % 2 == 0
  ngx.status = i % 10 == 0 and 502 or 200
  vars.upstream_connect_time, vars.upstream_header_time = i % 20 == 0 and "-, - : " or "0.001, -", "-"
  vars.request, vars.http_host, vars.scheme = "GET /a%2Fb?c=" .. i .. " HTTP/1.1", "reviews:9080", "http"
  vars.http_user_agent, vars.sent_http_x_kind = "curl/8", i % 2 == 1 and 'a "kind"' or nil
  vars.proxy_protocol_addr, vars.proxy_protocol_port = "10.9.0.1", "40000"
  vars.proxy_protocol_server_addr, vars.proxy_protocol_server_port = "10.96.0.7", "9080"
  vars.body_bytes_sent, vars.content_length, vars.connection = "1900", "30", "5"
  vars.upstream_response_time, vars.upstream_bytes_sent, vars.upstream_bytes_received = "0.002, 0.003", "0, 70", "0, 80"
  run({}, {
    matched_route = {value = {id = inbound and "r.in" or "r.out", name = inbound and "i:8080:tls|a|b" or "9080|a|b", upstream_id = inbound and "u.in" or "u.reviews"}},
    balancer_ip = "10.0.0.1", balancer_port = 9080,
  })
  if i % every == 0 then fire() end
end
ENDING = true
fire() fire()
io.write(table.concat(posted, "\n"))
`

// runProgram returns what the program reports of so many requests.
func runProgram(t *testing.T, r Rule, requests, every, away int) (reports []string) {
	t.Helper()
	r.Address = netip.MustParseAddrPort("127.0.0.1:15099")
	script := fmt.Sprintf("local chunk = assert(loadstring(%s))\nchunk(%s, %d, %d, %d)\n",
		longString(stand), longString(programOf(t, r)), requests, every, away)
	for part := range strings.SplitSeq(runLua(t, script), "\n{") {
		reports = append(reports, "{"+strings.TrimPrefix(part, "{"))
	}
	return reports
}

// runLua returns what a program writes.
func runLua(t *testing.T, script string) string {
	t.Helper()
	luajit, err := exec.LookPath("luajit")
	if err != nil {
		t.Skip("needs luajit in PATH")
	}
	command := exec.CommandContext(t.Context(), luajit, "-")
	command.Stdin = strings.NewReader(script)
	var failure bytes.Buffer
	command.Stderr = &failure
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, failure.Bytes())
	}
	return string(out)
}

func TestTheProgramReportsEveryRequest(t *testing.T) {
	const requests = 9990
	reports := runProgram(t, Rule{Profile: translate.Mesh()}, requests, 1000, 2)
	c := newCounted(t, newWorld(t))
	for _, body := range reports {
		if code := c.post(t, body); code != http.StatusNoContent {
			t.Fatalf("%d: %.500s", code, body)
		}
	}
	if got := c.value(t, "istio_requests_total"); got != requests {
		t.Errorf("%g requests in %d reports, want %d", got, len(reports), requests)
	}
	if got := c.value(t, "istio_requests_total", "reporter=source", "destination_workload=unknown"); got+c.value(t, "istio_requests_total", "reporter=destination") == 0 {
		t.Error("nothing is counted")
	}
	if got := c.value(t, "istio_requests_total", "response_flags=UF,URX"); got != requests/10 {
		t.Errorf("%g requests failed, want %d", got, requests/10)
	}
	// 4995 clients in reports of 1000 requests, and one that waited for the bridge to come back.
	if got := c.value(t, "meshbridge_request_folded_total"); got != 0 {
		t.Logf("%g requests were folded", got)
	}
}

// longString is a string in Lua without escapes.
func longString(s string) string { return "[==[\n" + s + "]==]" }
