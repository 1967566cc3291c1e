package apisix

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// pluginRun is a matched request on its way through the plugins that answer it, change where it
// goes, or what it becomes. They run in the order of APISIX's priorities, the rewrite phase first.
type pluginRun struct {
	d       *Decision
	e       *Evaluator
	vars    *requestVars
	plugins Plugins
	// upstreamID is traffic-split's choice.
	upstreamID string
	// rewritten tells that proxy-rewrite has made another path.
	rewritten bool
}

// decide fills in what happens to a request that a route has matched.
func (e *Evaluator) decide(d *Decision, entry *routeEntry, vars *requestVars) {
	route := entry.Route
	d.RouteID, d.Route = route.ID, &route
	vars.routeID, vars.name = route.ID, route.Name
	d.Host, d.URI = vars.request.Host, vars.target
	d.Headers, d.Response = newHeaderLines(vars.request.Headers), headerLines{}

	if route.PluginConfigID != "" {
		config, ok := e.configs[route.PluginConfigID]
		if !ok {
			d.answer("plugin_config", 503)
			d.Notes = append(d.Notes, "plugin_config "+route.PluginConfigID+" does not exist")
			return
		}
		merged := maps.Clone(config)
		maps.Copy(merged, route.Plugins) // the route's own plugin wins as a whole
		route.Plugins = merged
	}
	run := &pluginRun{d: d, e: e, vars: vars, plugins: route.Plugins}
	defer run.responseRewrite()
	steps := []struct {
		name string
		run  func(config json.RawMessage)
	}{
		{"fault-injection", run.faultInjection}, // rewrite, 11000
		{"cors", run.cors},                      // rewrite, 4000
		{"proxy-rewrite", run.proxyRewrite},     // rewrite, 1008
		{"redirect", run.redirect},              // rewrite, 900
		{"forward-auth", run.forwardAuth},       // access, 2002
		{"workflow", run.workflow},              // access, 1006
		{"traffic-split", run.trafficSplit},     // access, 966
		{"mocking", run.mocking},                // access, 900 by its own _meta
		{"grpc-web", run.grpcWeb},               // access, 505
	}
	for _, step := range steps {
		if config, ok := run.active(step.name); ok {
			step.run(config)
		}
		if d.Status != 0 {
			return
		}
	}
	e.forward(d, entry, run.upstreamID)
	if run.rewritten && d.Upstream != nil && strings.HasPrefix(d.Upstream.Scheme, "grpc") {
		// nginx's gRPC module takes the encoded path for a decoded one, and encodes it.
		path, query, hasQuery := strings.Cut(d.URI, "?")
		if d.URI = strings.ReplaceAll(path, "%", "%25"); hasQuery {
			d.URI += "?" + query
		}
	}
}

func (d *Decision) answer(by string, status int) {
	d.AnsweredBy, d.Status = by, status
}

// active returns the configuration of a plugin unless _meta keeps it from running.
func (p *pluginRun) active(name string) (json.RawMessage, bool) {
	value, ok := p.plugins[name]
	if !ok {
		return nil, false
	}
	config, err := json.Marshal(value)
	if err != nil {
		return nil, false
	}
	var meta struct {
		Meta struct {
			Disable bool  `json:"disable"`
			Filter  []any `json:"filter"`
		} `json:"_meta"`
	}
	if !p.decode(name, config, &meta) || meta.Meta.Disable {
		return nil, false
	}
	if meta.Meta.Filter != nil {
		// A filter that does not compile lets the plugin run.
		if filter, err := ParseExpr(meta.Meta.Filter); err == nil && !p.holds(name, filter) {
			return nil, false
		}
	}
	return config, true
}

func (p *pluginRun) decode(name string, config json.RawMessage, into any) bool {
	if err := json.Unmarshal(config, into); err != nil {
		p.note(name, err.Error())
		return false
	}
	return true
}

func (p *pluginRun) note(name, text string) {
	p.d.Notes = append(p.d.Notes, "plugins."+name+": "+text)
}

func (p *pluginRun) holds(name string, e *Expr) bool {
	ok, err := e.Eval(p.vars.lookup)
	if err != nil {
		p.note(name, err.Error())
	}
	return ok
}

// anyHolds is a list of expressions of which one is enough; without a list, always.
func (p *pluginRun) anyHolds(name string, expressions []any) bool {
	if expressions == nil {
		return true
	}
	return slices.ContainsFunc(expressions, func(expression any) bool {
		e, err := ParseExpr(expression)
		return err == nil && p.holds(name, e)
	})
}

func (p *pluginRun) faultInjection(config json.RawMessage) {
	const name = "fault-injection"
	type condition struct {
		Percentage *int  `json:"percentage"`
		Vars       []any `json:"vars"`
	}
	var c struct {
		Abort *struct {
			condition
			Status  int            `json:"http_status"`
			Body    string         `json:"body"`
			Headers map[string]any `json:"headers"`
		} `json:"abort"`
		Delay *struct {
			condition
			Duration float64 `json:"duration"`
		} `json:"delay"`
	}
	if !p.decode(name, config, &c) {
		return
	}
	hits := func(what string, c condition) bool {
		if !p.anyHolds(name, c.Vars) || c.Percentage != nil && *c.Percentage == 0 {
			return false
		}
		if c.Percentage != nil && *c.Percentage < 100 {
			p.note(name, fmt.Sprintf("%d %% of the requests get the %s; this one is taken not to", *c.Percentage, what))
			return false
		}
		return true
	}
	if c.Delay != nil && hits("delay", c.Delay.condition) {
		p.d.Delay = c.Delay.Duration
	}
	if c.Abort != nil && hits("abort", c.Abort.condition) {
		p.d.answer(name, c.Abort.Status)
		p.d.Body = resolveTemplate(c.Abort.Body, p.vars.lookup)
		for header, value := range c.Abort.Headers {
			text, isText := value.(string)
			if !isText {
				text, _ = luaString(value)
			}
			headerLines(p.d.Response).set(header, resolveTemplate(text, p.vars.lookup))
		}
	}
}

func (p *pluginRun) cors(json.RawMessage) {
	if p.vars.method == "OPTIONS" {
		p.d.answer("cors", 200) // whether or not it is a preflight
	}
}

func (p *pluginRun) workflow(config json.RawMessage) {
	const name = "workflow"
	var c struct {
		Meta struct {
			ErrorResponse string `json:"error_response"`
		} `json:"_meta"`
		Rules []struct {
			Case    []any   `json:"case"`
			Actions [][]any `json:"actions"`
		} `json:"rules"`
	}
	if !p.decode(name, config, &c) {
		return
	}
	for _, rule := range c.Rules {
		if rule.Case != nil {
			// A case that does not compile always matches.
			if e, err := ParseExpr(rule.Case); err == nil && !p.holds(name, e) {
				continue
			}
		}
		if len(rule.Actions) == 0 || len(rule.Actions[0]) < 2 {
			return
		}
		parameters, _ := rule.Actions[0][1].(map[string]any)
		if code, ok := parameters["code"].(float64); ok && rule.Actions[0][0] == any("return") {
			p.d.answer(name, int(code))
			p.d.Body = c.Meta.ErrorResponse
			return
		}
		p.note(name, fmt.Sprintf("the action %v is taken to let the request pass", rule.Actions[0][0]))
		return
	}
}

func (p *pluginRun) trafficSplit(config json.RawMessage) {
	const name = "traffic-split"
	type weighted struct {
		UpstreamID string          `json:"upstream_id"`
		Upstream   json.RawMessage `json:"upstream"`
		Weight     *int            `json:"weight"`
	}
	var c struct {
		Rules []struct {
			Match []struct {
				Vars []any `json:"vars"`
			} `json:"match"`
			Upstreams []weighted `json:"weighted_upstreams"`
		} `json:"rules"`
	}
	if !p.decode(name, config, &c) {
		return
	}
	for _, rule := range c.Rules {
		for _, u := range rule.Upstreams {
			if u.UpstreamID != "" && p.e.upstreams[u.UpstreamID] == nil {
				p.d.answer(name, 500)
				p.note(name, "upstream "+u.UpstreamID+" does not exist")
				return
			}
		}
		matched := len(rule.Match) == 0
		for _, m := range rule.Match {
			if e, err := ParseExpr(m.Vars); err == nil && p.holds(name, e) {
				matched = true
				break
			}
		}
		if !matched {
			continue
		}
		for _, u := range rule.Upstreams {
			weight := 1
			if u.Weight != nil {
				weight = *u.Weight
			}
			if u.Upstream != nil {
				p.note(name, "an inline upstream is not evaluated")
			}
			p.split(WeightedUpstream{u.UpstreamID, weight})
		}
		if len(p.d.Split) > 0 {
			p.upstreamID = slices.MaxFunc(p.d.Split, func(a, b WeightedUpstream) int {
				return cmp.Compare(a.Weight, b.Weight)
			}).UpstreamID
		}
		return
	}
}

// split adds a destination. Upstreams are the keys of a table, so that of two entries for the same
// one only the last counts. An empty id is the route's own upstream.
func (p *pluginRun) split(w WeightedUpstream) {
	i := slices.IndexFunc(p.d.Split, func(o WeightedUpstream) bool { return o.UpstreamID == w.UpstreamID })
	if i >= 0 {
		p.d.Split[i] = w
		return
	}
	p.d.Split = append(p.d.Split, w)
}

// forward resolves the upstream and what it receives as Host.
func (e *Evaluator) forward(d *Decision, entry *routeEntry, chosen string) {
	d.UpstreamID = orDefault(chosen, entry.UpstreamID)
	if d.UpstreamID != "" {
		d.Upstream = e.upstreams[d.UpstreamID]
		if d.Upstream == nil {
			d.answer("upstream", 502)
			d.Notes = append(d.Notes, "upstream "+d.UpstreamID+" does not exist")
			return
		}
	} else {
		d.Upstream = entry.InlineUpstream
	}
	if d.Upstream != nil && d.Upstream.PassHost == "rewrite" {
		d.Host = d.Upstream.UpstreamHost
	}
	if d.Upstream == nil || len(d.Upstream.Nodes) == 0 {
		d.answer("upstream", 503)
		return
	}
	if !strings.HasPrefix(d.URI, "/") { // nginx takes what there is for a part of the upstream's name
		d.answer("upstream", 502)
		d.Notes = append(d.Notes, "the rewritten path does not begin with /: "+d.URI)
		return
	}
	if d.Upstream.PassHost == "node" {
		d.Host = nodeHost(d.Upstream.Nodes[0], d.Upstream.Scheme)
	}
}

// nodeHost is the Host header for a node: with the port unless it is the scheme's own.
func nodeHost(n Node, scheme string) string {
	if n.Port == 80 && (scheme == "" || scheme == "http") || n.Port == 443 && scheme == "https" {
		return n.Host
	}
	return n.Host + ":" + strconv.Itoa(n.Port)
}
