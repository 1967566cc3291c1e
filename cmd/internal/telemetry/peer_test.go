package telemetry

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/translate"
)

// told is what a workload "reviews-v9" of the namespace "away" says of itself.
func told(t *testing.T) string {
	t.Helper()
	s, err := structpb.NewStruct(map[string]any{
		"WORKLOAD_NAME": "reviews-v9", "NAMESPACE": "away", "CLUSTER_ID": "c9",
		"LABELS": map[string]any{
			"app": "a9", "version": "v9", "service.istio.io/canonical-name": "cn9", "service.istio.io/canonical-revision": "cr9",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(data)
}

func TestAnAnswerTellsWhoseTheEndpointIs(t *testing.T) {
	const series = `"route": "r.out", "upstream": "u.reviews", "node": "10.0.0.1:9080", "status": 200`
	told := told(t)
	byItself := []string{
		"reporter=source", "destination_workload=reviews-v9", "destination_workload_namespace=away", "destination_cluster=c9",
		"destination_app=a9", "destination_version=v9", "destination_canonical_service=cn9", "destination_canonical_revision=cr9",
		"destination_service=reviews.default.svc.cluster.local",
	}
	byIstiod := []string{
		"reporter=source", "destination_workload=reviews-v1", "destination_app=unknown", "destination_version=unknown",
		"destination_canonical_service=reviews",
	}
	for name, c := range map[string]struct {
		more string
		want []string
	}{
		"what it says":                   {`, "peer": "sidecar~9", "metadata": "` + told + `"`, byItself},
		"without padding":                {`, "peer": "sidecar~9", "metadata": "` + strings.TrimRight(told, "=") + `"`, byItself},
		"in two lines":                   {`, "peer": "sidecar~9", "metadata": "` + told + `, eA=="`, byItself},
		"it says nothing":                {``, byIstiod},
		"what it says is not understood": {`, "peer": "sidecar~9", "metadata": "eA=="`, byIstiod},
	} {
		t.Run(name, func(t *testing.T) {
			counted := newCounted(t, newWorld(t))
			counted.post(t, reportOf("1", 1, 2, series+c.more))
			if got := counted.value(t, "istio_requests_total", c.want...); got != 2 {
				t.Errorf("%g requests have the labels, want 2", got)
			}
		})
	}
}

// Servers that make up names for each answer do not make as many series.
func TestServersThatMakeUpNamesAreCountedAsUnknown(t *testing.T) {
	c := newCounted(t, newWorld(t))
	const made = maxSeries + 100
	for i := range made {
		s, err := structpb.NewStruct(map[string]any{"WORKLOAD_NAME": fmt.Sprint("w", i)})
		if err != nil {
			t.Fatal(err)
		}
		data, err := proto.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		series := fmt.Sprintf(`"route": "r.out", "upstream": "u.reviews", "node": "10.0.0.1:9080", "status": 200, "peer": "p%d", "metadata": %q`,
			i, base64.StdEncoding.EncodeToString(data))
		if code := c.post(t, reportOf("1", i+1, 1, series)); code != http.StatusNoContent {
			t.Fatal(code)
		}
	}
	if got := c.value(t, "istio_requests_total"); got != made {
		t.Errorf("%g requests, want %d", got, made)
	}
	if got := c.value(t, "istio_requests_total", "destination_workload=unknown"); got != 100 {
		t.Errorf("%g requests to unknown workloads, want 100", got)
	}
}

// peerStand prints what the program reports of requests whose headers have been taken away, and of an answer.
const peerStand = `
local program, metadata = ...
local vars, fire = {}, nil
ngx = {
  status = 200, var = vars, ERR = 4, log = print, now = function() return 1 end, req = {start_time = function() return 1 end},
  worker = {pid = function() return 1 end, exiting = function() return false end},
  timer = {at = function(_, f) fire = f; return true end},
}
package.loaded["cjson.safe"] = {encode = function(report)
  for _, s in ipairs(report.series) do print(s.route .. ": " .. s.peer .. " " .. tostring(s.metadata == metadata)) end
  return ""
end}
package.loaded["resty.http"] = {new = function() return {set_timeout = function() end, request_uri = function() return {status = 204} end} end}
local run = assert(loadstring(program))()
local function try(id, name, ctx)
  ctx.matched_route = {value = {id = id, name = name}}
  run({}, ctx)
end
try("taken", "i:8080:tls|a|b", {meshbridge_peer_id = "client", meshbridge_peer = metadata})
try("silent", "i:8080:tls|a|b", {})
vars.upstream_http_x_envoy_peer_metadata_id, vars.upstream_http_x_envoy_peer_metadata = "server", metadata
try("answered", "9080|a|b", {meshbridge_hides = "hidden"})
try("elsewhere", "9081|a|b", {})
vars.http_x_envoy_peer_metadata_id, vars.http_x_envoy_peer_metadata = "client", metadata
try("passed", "i:8080:tls|a|b", {})
fire()
`

func TestTheProgramReportsWhoThePeerIs(t *testing.T) {
	program := programOf(t, Rule{Address: netip.MustParseAddrPort("127.0.0.1:15099"), Profile: translate.Mesh()})
	got := runLua(t, "assert(loadstring("+longString(peerStand)+"))("+longString(program)+", "+longString(told(t))+")\n")
	const want = "taken: client true\nsilent:  false\nanswered: server true\nelsewhere:  false\npassed: client true\n"
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
