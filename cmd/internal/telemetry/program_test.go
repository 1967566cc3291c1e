package telemetry

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

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
	for _, rule := range []Rule{{}, {Mesh: true}, {Gateway: true}} {
		rule.Address = netip.MustParseAddrPort("127.0.0.1:15099")
		if text := programOf(t, rule); strings.Contains(text, "@") || !strings.Contains(text, "http://127.0.0.1:15099/log") {
			t.Error(text)
		}
	}
}

// stand is what the program has of nginx and APISIX. Timers fire at once when the test says so, and the bridge
// is away for the first two reports.
const stand = `
local program, requests = ...
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
local away = 2
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
  vars.upstream_connect_time, vars.upstream_header_time = "0.001, -", "-"
  run({}, {
    matched_route = {value = {id = inbound and "r.in" or "r.out", name = inbound and "i:8080:tls|a|b" or "9080|a|b", upstream_id = inbound and "u.in" or "u.reviews"}},
    balancer_ip = "10.0.0.1", balancer_port = 9080,
  })
  if i % 1000 == 0 then fire() end
end
ENDING = true
fire() fire()
io.write(table.concat(posted, "\n"))
`

func TestTheProgramReportsEveryRequest(t *testing.T) {
	luajit, err := exec.LookPath("luajit")
	if err != nil {
		t.Skip("needs luajit in PATH")
	}
	const requests = 9990
	program := programOf(t, Rule{Address: netip.MustParseAddrPort("127.0.0.1:15099"), Mesh: true})
	script := "local chunk = assert(loadstring(" + longString(stand) + "))\nchunk(" + longString(program) + ", 9990)\n"
	command := exec.CommandContext(t.Context(), luajit, "-")
	command.Stdin = strings.NewReader(script)
	var failure bytes.Buffer
	command.Stderr = &failure
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, failure.Bytes())
	}
	reports := strings.Split(string(out), "\n")
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
