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
}

// decide fills in what happens to a request that a route has matched.
func (e *Evaluator) decide(d *Decision, entry *routeEntry, vars *requestVars) {
	route := entry.Route
	d.RouteID, d.Route = route.ID, &route
	vars.routeID, vars.name = route.ID, route.Name
	d.Host, d.URI = vars.request.Host, vars.target

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
			Status int    `json:"http_status"`
			Body   string `json:"body"`
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
	}
}

func (p *pluginRun) cors(json.RawMessage) {
	if p.vars.method == "OPTIONS" {
		p.d.answer("cors", 200) // whether or not it is a preflight
	}
}

func (p *pluginRun) forwardAuth(json.RawMessage) {
	p.note("forward-auth", "the authorization service is taken to allow the request")
}

func (p *pluginRun) workflow(config json.RawMessage) {
	const name = "workflow"
	var c struct {
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
	if d.Upstream == nil || len(d.Upstream.Nodes) == 0 {
		d.answer("upstream", 503)
		return
	}
	switch d.Upstream.PassHost {
	case "rewrite":
		d.Host = d.Upstream.UpstreamHost
	case "node":
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

// proxyRewrite computes the request target that the upstream receives.
func (p *pluginRun) proxyRewrite(config json.RawMessage) {
	const name = "proxy-rewrite"
	var c struct {
		URI      string   `json:"uri"`
		RegexURI []string `json:"regex_uri"`
		Host     string   `json:"host"`
		Method   string   `json:"method"`
		Real     bool     `json:"use_real_request_uri_unsafe"`
	}
	if !p.decode(name, config, &c) {
		return
	}
	if c.Host != "" {
		p.d.Host = c.Host
	}
	uri, query := p.vars.path, ""
	if c.Real {
		uri = p.vars.target
		if i := strings.IndexByte(uri, '?'); i >= 0 {
			query = uri[i:]
		}
	}
	separatorEscaped := false // whether a "?" in uri starts a query
	switch {
	case c.URI != "":
		separatorEscaped = true
		uri = resolveTemplate(c.URI, p.escapedLookup)
		if query != "" && strings.Contains(uri, "?") {
			query = "&" + query[1:]
		}
		uri += query
	case len(c.RegexURI) > 0:
		separatorEscaped = !strings.Contains(uri, "?")
		for i := 0; i+1 < len(c.RegexURI); i += 2 {
			re, err := compilePCRE(c.RegexURI[i], false)
			if err != nil {
				p.note(name, err.Error())
				break
			}
			rewritten, ok := re.replaceFirst(uri, c.RegexURI[i+1])
			if ok {
				uri = rewritten
				break
			}
		}
	}
	if c.Real {
		p.d.URI = uri
		return
	}
	path, query, hasQuery := strings.Cut(uri, "?")
	if !separatorEscaped {
		path, hasQuery = uri, false
	}
	p.d.URI = escapeURI(path)
	if hasQuery {
		p.d.URI += "?" + query
	}
	switch {
	case p.vars.args == "":
	case hasQuery:
		p.d.URI += "&" + p.vars.args
	default:
		p.d.URI += "?" + p.vars.args
	}
}

// escapedLookup escapes the first "?" of a value, which would otherwise begin the query.
func (p *pluginRun) escapedLookup(name string) any {
	value := p.vars.lookup(name)
	if s, ok := value.(string); ok {
		return strings.Replace(s, "?", "%3F", 1)
	}
	return value
}

func (p *pluginRun) redirect(config json.RawMessage) {
	const name = "redirect"
	var c struct {
		URI         string   `json:"uri"`
		RegexURI    []string `json:"regex_uri"`
		HTTPS       bool     `json:"http_to_https"`
		Code        *int     `json:"ret_code"`
		EncodeURI   bool     `json:"encode_uri"`
		AppendQuery bool     `json:"append_query_string"`
	}
	if !p.decode(name, config, &c) {
		return
	}
	status := 302
	if c.Code != nil {
		status = *c.Code
	}
	scheme := p.vars.scheme
	if forwarded, ok := p.vars.headers["x_forwarded_proto"]; ok {
		scheme = forwarded
	}
	var location string
	switch {
	case c.HTTPS && scheme != "https":
		location = "https://" + p.vars.host + p.vars.path + p.vars.isArgs() + p.vars.args
		status = 308
		if p.vars.method == "GET" || p.vars.method == "HEAD" {
			status = 301
		}
	case c.URI != "":
		location = p.redirectURI(c.URI)
	case len(c.RegexURI) == 2:
		re, err := compilePCRE(c.RegexURI[0], false)
		if err != nil {
			p.note(name, err.Error())
			return
		}
		rewritten, ok := re.replaceFirst(p.vars.path, c.RegexURI[1])
		if !ok {
			return
		}
		location = rewritten
	default:
		return
	}
	path, query, hasQuery := strings.Cut(location, "?")
	if c.EncodeURI {
		path = escapeURI(path)
		location = path
		if hasQuery {
			location += "?" + query
		}
	}
	if c.AppendQuery && p.vars.args != "" {
		separator := "?"
		if hasQuery {
			separator = "&"
		}
		location += separator + p.vars.args
	}
	p.d.answer(name, status)
	p.d.Location = location
}

// redirectURI resolves the template of redirect's uri, whose syntax is its own: $name or ${name}, a
// backslash that keeps a reference and itself, and other backslashes dropped.
func (p *pluginRun) redirectURI(template string) string {
	var b strings.Builder
	for i := 0; i < len(template); {
		rest := template[i:]
		length := redirectName(rest[1:])
		switch {
		case rest[0] == '\\' && strings.HasPrefix(rest[1:], "$"):
			if n := redirectName(rest[2:]); n > 0 {
				b.WriteString(rest[:2+n])
				i += 2 + n
				continue
			}
			i++
		case rest[0] == '\\':
			i++
		case strings.HasPrefix(rest, "${") && redirectName(rest[2:]) > 0 && strings.HasPrefix(rest[2+redirectName(rest[2:]):], "}"):
			n := redirectName(rest[2:])
			b.WriteString(resolveReference(rest[2:2+n], p.vars.lookup))
			i += n + 3
		case rest[0] == '$' && length > 0:
			b.WriteString(resolveReference(rest[1:1+length], p.vars.lookup))
			i += 1 + length
		default:
			b.WriteByte(rest[0])
			i++
		}
	}
	return b.String()
}

// redirectName returns the length of a variable's name at the start of s.
func redirectName(s string) int {
	n := 0
	for n < len(s) && (isAlphanumeric(s[n]) || s[n] == '_') {
		n++
	}
	return n
}
