package translate

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"meshbridge/translate/apisix"
)

// peerRuleID is the id of the global rule that exchanges metadata with peers: one object however many routes
// there are, which do not grow by the headers.
const peerRuleID = "g.peers"

// labelQuiet is on routes whose requests do not say whose they are.
const labelQuiet = "meshbridge.quiet"

// peerAnswers is the variable by which response-rewrite knows the answers from which it removes the headers.
const peerAnswers, peerAnswersHidden = "meshbridge_peer_answers", "hidden"

// peerProgram runs before the plugins of routes. What it takes from a request stays in the request's context,
// as meshbridge_peer_id and meshbridge_peer, for whoever counts it; meshbridge_hides tells that the answer may
// have some, too.
//
//go:embed peer_exchange.lua
var peerProgram string

// peerRewrite is the response-rewrite that removes the headers.
type peerRewrite struct {
	Vars    apisix.Vars `json:"vars"`
	Headers any         `json:"headers"`
}

// serverless has functions of Lua.
type serverless struct {
	Phase     string   `json:"phase"`
	Functions []string `json:"functions"`
}

// compilePeers publishes the global rule, where a chain asks for it.
func (p *step) compilePeers() {
	s := p.state
	var diagnostics []Diagnostic
	roles := map[string]peerExchange{}
	asked := false
	for _, c := range s.table.chains {
		if c.HTTP && c.NotServed == "" {
			roles[c.Key] = c.peers
			asked = asked || c.peers != peerExchange{}
		}
	}
	var objects []apisix.Object
	if asked {
		report := s.reporter(&diagnostics, "GlobalRule "+peerRuleID, "", "")
		rule := s.peerRule(roles, report)
		o, err := encode(apisix.KindGlobalRule, rule.ID, rule, rule.Validate(s.options.APISIXVersion))
		if err != nil {
			report("invalid_object", "", "global rule "+rule.ID, err)
		} else {
			objects = append(objects, o)
		}
	}
	s.objects.replace("peers", objects) // nobody else makes this id
	p.reported = p.reported || !slices.Equal(s.peerDiagnostics, diagnostics)
	s.peerDiagnostics = diagnostics
}

// peerRule returns the rule for what chains do. What most chains of a direction do is said once.
func (s *State) peerRule(chains map[string]peerExchange, report reporter) *apisix.GlobalRule {
	usual := map[bool]peerExchange{} // by whether a chain is inbound
	count := map[bool]map[peerExchange]int{false: {}, true: {}}
	keys := slices.Sorted(maps.Keys(chains))
	for _, key := range keys {
		inbound, x := isInboundKey(key), chains[key]
		if count[inbound][x]++; count[inbound][x] > count[inbound][usual[inbound]] {
			usual[inbound] = x
		}
	}
	values := map[string]string{} // by labels that are told
	var special []string
	for _, key := range keys {
		x := chains[key]
		if _, there := values[x.labels]; !there {
			value, err := peerMetadata(s.options.Metadata, s.options.Locality, strings.FieldsFunc(x.labels, isComma))
			if err != nil { // of text that is not UTF-8
				report(codePeerMetadata, "", err)
			}
			values[x.labels] = value
		}
		if x != usual[isInboundKey(key)] {
			special = append(special, "["+apisix.LuaQuote(key)+"] = "+x.role(values[x.labels]))
		}
	}
	role := func(inbound bool) string { x := usual[inbound]; return x.role(values[x.labels]) }
	exceptions := "nil"
	if len(special) > 0 {
		exceptions = "{" + strings.Join(special, ", ") + "}"
	}
	rule := &apisix.GlobalRule{ID: peerRuleID, Plugins: apisix.Plugins{
		pluginServerlessPre: serverless{Phase: "rewrite", Functions: []string{
			fmt.Sprintf("local node, inbound, others, chains = %s, %s, %s, %s\n", apisix.LuaQuote(s.options.NodeID), role(true), role(false), exceptions) +
				strings.ReplaceAll(peerProgram, "@LABEL@", labelQuiet),
		}},
	}}
	hides := slices.ContainsFunc(slices.Collect(maps.Values(chains)), func(x peerExchange) bool { return x.hide })
	if other := s.userRuleWith(pluginResponseRewrite); hides && other != "" {
		report(codePeerMetadata, "", "the answers of servers, whose headers reach clients: APISIX would run neither of two global rules with response-rewrite, and "+other+" has it")
	} else if hides {
		rule.Plugins[pluginResponseRewrite] = s.peerRewrite()
	}
	return rule
}

func isComma(c rune) bool { return c == ',' }

// isInboundKey tells whether a chain's key is that of an inbound chain, as the program does.
func isInboundKey(key string) bool { return strings.HasPrefix(key, "i:") }

// role is what the program does with requests of a chain: a table of Lua.
func (x peerExchange) role(value string) string {
	var fields []string
	if x.take {
		fields = append(fields, "take = true")
	}
	if x.answer && value != "" {
		fields = append(fields, "answer = "+apisix.LuaQuote(value))
	}
	if x.tell && value != "" {
		fields = append(fields, "tell = "+apisix.LuaQuote(value))
	}
	if x.hide {
		fields = append(fields, "hide = "+apisix.LuaQuote(peerAnswersHidden))
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

func (s *State) peerRewrite() peerRewrite {
	names := []string{"x-envoy-peer-metadata-id", "x-envoy-peer-metadata"}
	rewrite := peerRewrite{Vars: apisix.List(apisix.Eq(peerAnswers, peerAnswersHidden))}
	if s.options.APISIXVersion.Has(apisix.FeatureResponseHeaders) {
		rewrite.Headers = responseHeaderChanges{Remove: names}
		return rewrite
	}
	set := headersToSet{}
	for _, name := range names {
		set[name] = ""
	}
	rewrite.Headers = set
	return rewrite
}

// userRuleWith returns the key of a global rule of users that has a plugin; empty where none has.
func (s *State) userRuleWith(plugin string) string {
	if s.inputs.Extensions == nil {
		return ""
	}
	for _, o := range s.inputs.Extensions.Objects() {
		var rule struct {
			Plugins map[string]json.RawMessage `json:"plugins"`
		}
		if o.Kind == apisix.KindGlobalRule && json.Unmarshal(o.Value, &rule) == nil && rule.Plugins[plugin] != nil {
			return o.Key()
		}
	}
	return ""
}
