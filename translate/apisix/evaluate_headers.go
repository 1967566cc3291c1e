package apisix

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// headerLines are header lines by lower-case name, as they are sent.
type headerLines map[string][]string

func newHeaderLines(headers map[string][]string) headerLines {
	out := make(headerLines, len(headers))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		key := strings.ToLower(name)
		out[key] = append(out[key], headers[name]...)
	}
	return out
}

// add and set send no header that is empty; one that is set to nothing is removed.
func (h headerLines) add(name, value string) {
	if value != "" {
		h[strings.ToLower(name)] = append(h[strings.ToLower(name)], value)
	}
}

func (h headerLines) set(name, value string) {
	h.remove(name)
	h.add(name, value)
}

func (h headerLines) remove(name string) { delete(h, strings.ToLower(name)) }

// headerOperations are what proxy-rewrite and response-rewrite do to headers: they add, then set,
// then remove. Fields of one operation are executed in the order of a Lua table, which is none: a
// value that refers to a header that is changed as well is taken to see it unchanged.
type headerOperations struct {
	Add    map[string]string
	Set    map[string]string
	Remove []string
	// Lines are "name: value" to be added.
	Lines []string
}

func (o headerOperations) apply(h headerLines, vars Variables) {
	changed := newHeaderLines(h)
	for _, name := range slices.Sorted(maps.Keys(o.Add)) {
		changed.add(name, resolveTemplate(o.Add[name], vars))
	}
	for _, line := range o.Lines {
		name, value, _ := strings.Cut(line, ":")
		changed.add(strings.TrimSpace(name), resolveTemplate(strings.TrimLeft(value, " \t"), vars))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Set)) {
		changed.set(name, resolveTemplate(o.Set[name], vars))
	}
	for _, name := range o.Remove {
		changed.remove(name)
	}
	clear(h)
	maps.Copy(h, changed)
}

// configuredHeaders are headers as a plugin has them. In old releases, they are just those to set.
type configuredHeaders[Added any] struct {
	Add    Added
	Set    map[string]string
	Remove []string
}

func (h *configuredHeaders[Added]) UnmarshalJSON(raw []byte) error {
	if json.Unmarshal(raw, &h.Set) == nil {
		return nil
	}
	h.Set = nil
	type operations configuredHeaders[Added]
	return json.Unmarshal(raw, (*operations)(h))
}

// requestHeaders does what proxy-rewrite's headers say to those that the upstream receives.
func (p *pluginRun) requestHeaders(config json.RawMessage) {
	var c struct {
		Headers configuredHeaders[map[string]string] `json:"headers"`
	}
	if !p.decode("proxy-rewrite", config, &c) {
		return
	}
	headerOperations{Add: c.Headers.Add, Set: c.Headers.Set, Remove: c.Headers.Remove}.apply(p.d.Headers, p.vars.lookup)
}

// responseRewrite is the header filter of every response, also of those that a plugin gave.
func (p *pluginRun) responseRewrite() {
	const name = "response-rewrite"
	if p.d.AnsweredBy == "" {
		p.d.Response = newHeaderLines(p.vars.request.Response)
	}
	if p.d.Location != "" {
		headerLines(p.d.Response).set("location", p.d.Location)
	}
	config, ok := p.active(name)
	if !ok || runsBeforeGRPCWeb(config) {
		defer p.grpcWebResponse()
	} else {
		p.grpcWebResponse()
	}
	if !ok {
		return
	}
	var c struct {
		Vars    []any                       `json:"vars"`
		Headers configuredHeaders[[]string] `json:"headers"`
	}
	if !p.decode(name, config, &c) {
		return
	}
	if c.Vars != nil {
		if e, err := ParseExpr(c.Vars); err != nil || !p.holds(name, e) {
			return
		}
	}
	operations := headerOperations{Lines: c.Headers.Add, Set: c.Headers.Set, Remove: c.Headers.Remove}
	operations.apply(p.d.Response, p.responseLookup)
	if location := p.d.Response["location"]; len(location) > 0 {
		p.d.Location = location[0]
	}
}

// responseLookup also knows the variables with the headers of the response.
func (p *pluginRun) responseLookup(name string) any {
	for prefix, lines := range map[string]map[string][]string{"sent_http_": p.d.Response, "upstream_http_": p.vars.request.Response} {
		header, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		for key, values := range lines {
			if headerVariable(key) == header {
				return strings.Join(values, ", ")
			}
		}
		return nil
	}
	return p.vars.lookup(name)
}
