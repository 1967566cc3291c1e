package translate

import (
	"bytes"
	"encoding/base64"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/translate/apisix"
)

func TestPeersAreToldWhatIstiosProxiesTell(t *testing.T) {
	for name, c := range map[string]struct {
		node   map[string]any
		at     Locality
		labels []string
		want   map[string]any
	}{
		"a deployment": {
			node: map[string]any{
				"NAME": "client-1", "NAMESPACE": "shop", "WORKLOAD_NAME": "client", "CLUSTER_ID": "c1", "INSTANCE_IPS": "10.0.0.1",
				"OWNER":  "kubernetes://apis/apps/v1/namespaces/shop/deployments/client",
				"LABELS": map[string]any{"app": "client", "version": "v1", "team": "a", "service.istio.io/canonical-name": "cn", "service.istio.io/canonical-revision": "cr"},
			},
			want: map[string]any{
				"NAME": "client-1", "NAMESPACE": "shop", "WORKLOAD_NAME": "client", "CLUSTER_ID": "c1",
				"OWNER":  "kubernetes://apis/apps/v1/namespaces/shop/deployments/client",
				"LABELS": map[string]any{"app": "client", "version": "v1", "service.istio.io/canonical-name": "cn", "service.istio.io/canonical-revision": "cr"},
			},
		},
		"Kubernetes' own labels, more of them, and a place": {
			node: map[string]any{
				"NAMESPACE": "shop", "WORKLOAD_NAME": "w", "OWNER": "kubernetes://apis/apps/v1/namespaces/shop/statefulsets/w",
				"LABELS": map[string]any{"app": "a", "app.kubernetes.io/name": "k", "version": "v1", "app.kubernetes.io/version": "v2", "team": "a"},
			},
			at: Locality{Region: "r1", Zone: "z1", SubZone: "s1"}, labels: []string{"app.kubernetes.io/name", "missing", "team"},
			want: map[string]any{
				"NAMESPACE": "shop", "WORKLOAD_NAME": "w", "REGION": "r1", "AVAILABILITY_ZONE": "z1",
				"LABELS": map[string]any{"app": "k", "version": "v2", "team": "a"},
			},
		},
		"nobody": {want: map[string]any{"LABELS": map[string]any{}}},
	} {
		t.Run(name, func(t *testing.T) {
			node, err := structpb.NewStruct(c.node)
			if err != nil {
				t.Fatal(err)
			}
			value, err := peerMetadata(node, c.at, c.labels)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				t.Fatal(err)
			}
			got := new(structpb.Struct)
			if err := proto.Unmarshal(raw, got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got.AsMap()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// peerRuleOf returns the global rule of the case about the exchange, as a release gets it.
func peerRuleOf(t *testing.T, version string, extensions Extensions) (rule *apisix.GlobalRule, diagnostics []Diagnostic) {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("../testdata/cases", "filter-peer-metadata.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	options := caseOptions{APISIXVersion: version, Node: "sidecar~10.1.0.1~client-1.shop~x", Profile: "gateway"}.options(t)
	if version == "" {
		options.Profile = Mesh()
	}
	if options.Metadata, err = structpb.NewStruct(map[string]any{"LABELS": map[string]any{"team": "a"}}); err != nil {
		t.Fatal(err)
	}
	s := translatedWith(t, options, loadYAML(t, string(archive.Files[1].Data)), Inputs{Extensions: extensions})
	for o := range s.Objects() {
		if o.Key() == "global_rules/g.peers" {
			rule = new(apisix.GlobalRule)
			decodeJSON(t, o.Value, rule)
		}
	}
	if rule == nil {
		t.Fatal("there is no rule")
	}
	return rule, s.Diagnostics()
}

func TestOldReleasesRemoveHeadersOfAnswersByTheirOldForm(t *testing.T) {
	rule, _ := peerRuleOf(t, "2.15", nil)
	want := map[string]any{"x-envoy-peer-metadata": "", "x-envoy-peer-metadata-id": ""}
	if diff := cmp.Diff(want, rule.Plugins[pluginResponseRewrite].(map[string]any)["headers"]); diff != "" {
		t.Error(diff)
	}
}

// userRule is a user's global rule, and nothing else.
type userRule struct{}

func (userRule) Routes(*Chain, *routepb.VirtualHost) RouteExtensions { return nil }

func (userRule) Objects() []apisix.Object {
	return []apisix.Object{{Kind: apisix.KindGlobalRule, ID: "theirs", Value: []byte(`{"id":"theirs","plugins":{"response-rewrite":{"headers":{"set":{"a":"b"}}}}}`)}}
}
func (userRule) Problems() []ExtensionProblem           { return nil }
func (userRule) Documents() []string                    { return nil }
func (userRule) Stream(string, apisix.Plugins) Extended { return Extended{} }

// APISIX runs a plugin of two global rules for neither of them: a user's goes on.
func TestAUsersGlobalRuleIsNotDisturbed(t *testing.T) {
	rule, diagnostics := peerRuleOf(t, "", userRule{})
	if rule.Plugins[pluginResponseRewrite] != nil || rule.Plugins[pluginServerlessPre] == nil {
		t.Errorf("the rule has %v", rule.Plugins)
	}
	said := false
	for _, d := range diagnostics {
		said = said || d.Code == codePeerMetadata && strings.Contains(d.Message, "global_rules/theirs")
	}
	if !said {
		t.Errorf("nobody is told: %v", diagnostics)
	}
}

// programStand is what the program has of nginx and APISIX. It prints what becomes of each request's headers,
// those of its response, and what is kept for whoever counts it.
const programStand = `
local program = ...
local request, response
package.loaded["apisix.core"] = {
  request = {set_header = function(_, name, value) request[name] = value end},
  response = {set_header = function(name, value) response[name] = value end},
}
ngx = {var = setmetatable({}, {__index = function(_, key)
  return request[(key:gsub("^http_", ""):gsub("_", "-"))]
end})}
local run = assert(loadstring(program))()
local id, metadata = "x-envoy-peer-metadata-id", "x-envoy-peer-metadata"
local function show(what, headers)
  return what .. " " .. (headers[id] or "-") .. " " .. (headers[metadata] and #headers[metadata] or "-")
end
local function try(name, labels, with_id, with_metadata)
  request, response = {[id] = with_id, [metadata] = with_metadata}, {}
  local ctx = {var = {}, matched_route = name and {value = {name = name, labels = labels}}}
  run({}, ctx)
  print((name or "no route") .. ": " .. show("request", request) .. ", " .. show("response", response) .. ", kept "
    .. (ctx.meshbridge_peer_id or "-") .. " " .. (ctx.meshbridge_peer or "-") .. ", answers " .. (ctx.var.meshbridge_peer_answers or "-"))
end
try("80|a|both", {}, "forged", "forged")
try("80|a|out", {["meshbridge.quiet"] = "true"}, nil, "mine")
try("82|v|gone", nil)
try("i:9080:raw|inbound|http|9080|default", {})
try("i:9080:raw|inbound|http|9080|default", {}, "client", "eA==")
try("i:9080:raw|inbound|http|9080|default", {}, "client")
try("i:9080:raw|inbound|http|9080|default", {["meshbridge.quiet"] = "true"}, "client", "eA==")
try(nil, nil, "client", "eA==")
`

func TestTheProgramExchangesHeaders(t *testing.T) {
	luajit, err := exec.LookPath("luajit")
	if err != nil {
		t.Skip("needs luajit in PATH")
	}
	rule, _ := peerRuleOf(t, "", nil)
	program := rule.Plugins[pluginServerlessPre].(map[string]any)["functions"].([]any)[0].(string)
	command := exec.CommandContext(t.Context(), luajit, "-")
	command.Stdin = strings.NewReader("assert(loadstring(" + apisix.LuaQuote(programStand) + "))(" + apisix.LuaQuote(program) + ")\n")
	var failure bytes.Buffer
	command.Stderr = &failure
	got, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, failure.Bytes())
	}
	// The values differ in length: one of the chains tells a label more.
	want := `80|a|both: request sidecar~10.1.0.1~client-1.shop~x 20, response - -, kept - -, answers hidden
80|a|out: request - 4, response - -, kept - -, answers hidden
82|v|gone: request sidecar~10.1.0.1~client-1.shop~x 36, response - -, kept - -, answers 
i:9080:raw|inbound|http|9080|default: request - -, response - -, kept - -, answers 
i:9080:raw|inbound|http|9080|default: request - -, response sidecar~10.1.0.1~client-1.shop~x 20, kept client eA==, answers 
i:9080:raw|inbound|http|9080|default: request - -, response sidecar~10.1.0.1~client-1.shop~x -, kept client -, answers 
i:9080:raw|inbound|http|9080|default: request - -, response - -, kept client eA==, answers 
no route: request client 4, response - -, kept - -, answers -
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
