package translate

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"meshbridge/translate/apisix"
)

// headerLevel are the header operations of one level of the configuration. field is where they are,
// without the ending _to_add or _to_remove; it is empty for levels that the route is not part of.
type headerLevel struct {
	add    []*corepb.HeaderValueOption
	remove []string
	field  string
}

// levels orders what weighted cluster, route, virtual host and route configuration say as Envoy
// evaluates it: the later level wins.
func (rx *routeContext) levels(weighted, route, vhost, config headerLevel) []headerLevel {
	if rx.config.GetMostSpecificHeaderMutationsWins() {
		return []headerLevel{weighted, config, vhost, route}
	}
	return []headerLevel{weighted, route, vhost, config}
}

// requestHeaders merges the operations on request headers of all levels; nil where there are none.
func (rx *routeContext) requestHeaders(d destination) *headerChanges {
	var first headerLevel // what Envoy does before it looks for a route
	if rx.chain.dropsClientCertificate {
		first.remove = []string{"x-forwarded-client-cert"}
	}
	merged := rx.merge(requestScope(), append([]headerLevel{first}, rx.levels(
		headerLevel{d.own.GetRequestHeadersToAdd(), d.own.GetRequestHeadersToRemove(), d.headerField("request_headers")},
		headerLevel{rx.route.GetRequestHeadersToAdd(), rx.route.GetRequestHeadersToRemove(), "request_headers"},
		headerLevel{rx.vhost.GetRequestHeadersToAdd(), rx.vhost.GetRequestHeadersToRemove(), ""},
		headerLevel{rx.config.GetRequestHeadersToAdd(), rx.config.GetRequestHeadersToRemove(), ""},
	)...))
	merged = rx.tellCertificate(merged)
	if d.facts.aliased {
		merged = append(merged, headerOutcome{name: OriginalDestinationHeader, values: []string{rx.originalDestination()}})
	}
	if rx.vhost.GetIncludeRequestAttemptCount() {
		// APISIX does not count attempts, so a retry says 1 as well.
		merged = append(merged, headerOutcome{name: "x-envoy-attempt-count", values: []string{"1"}})
	}
	if len(merged) == 0 {
		return nil
	}
	out := &headerChanges{Add: map[string]string{}, Set: map[string]string{}}
	for _, h := range merged {
		switch value := strings.Join(h.values, ", "); {
		case len(h.values) == 0:
			out.Remove = append(out.Remove, h.name)
		case h.keep:
			out.Add[h.name] = value
		default:
			out.Set[h.name] = value
		}
	}
	return out
}

// responseHeaders merges the operations on response headers of all levels; nil where there are none.
func (rx *routeContext) responseHeaders(d destination) *responseRewrite {
	merged := rx.merge(responseScope(d.cluster), rx.levels(
		headerLevel{d.own.GetResponseHeadersToAdd(), d.own.GetResponseHeadersToRemove(), d.headerField("response_headers")},
		headerLevel{rx.route.GetResponseHeadersToAdd(), rx.route.GetResponseHeadersToRemove(), "response_headers"},
		headerLevel{rx.vhost.GetResponseHeadersToAdd(), rx.vhost.GetResponseHeadersToRemove(), ""},
		headerLevel{rx.config.GetResponseHeadersToAdd(), rx.config.GetResponseHeadersToRemove(), ""},
	))
	if len(merged) == 0 {
		return nil
	}
	out := &responseRewrite{Headers: responseHeaderChanges{Set: map[string]string{}}}
	for _, h := range merged {
		switch {
		case len(h.values) == 0:
			out.Headers.Remove = append(out.Headers.Remove, h.name)
		case h.keep && !slices.ContainsFunc(h.values, notAddable):
			for _, v := range h.values {
				out.Headers.Add = append(out.Headers.Add, h.name+": "+v)
			}
		default:
			if h.keep {
				rx.report(codeHeaderReplaced, h.field, h.name, "the plugin cannot add "+strconv.Quote(h.values[len(h.values)-1]))
			}
			if h.name == "set-cookie" && len(h.values) > 1 {
				// Cookies cannot be joined like the values of other headers (RFC 9110, section 5.3).
				rx.report(codeHeaderLeftOut, h.field, h.name, "only the last of several cookies is set")
				h.values = h.values[len(h.values)-1:]
			}
			out.Headers.Set[h.name] = strings.Join(h.values, ", ")
		}
	}
	return out
}

func (d destination) headerField(name string) string {
	return "route.weighted_clusters.clusters[" + strconv.Quote(d.cluster) + "]." + name
}

// notAddable tells whether response-rewrite refuses to add a value, and with it all operations.
func notAddable(value string) bool {
	return value == "" || strings.Contains(value, ":") || strings.HasSuffix(value, "/")
}

// headerOutcome is what all operations on a header together amount to: APISIX executes its
// operations in an order of its own, so that there must be only one for each header.
type headerOutcome struct {
	name string
	// keep tells that values are added to what is there; otherwise they replace it. Without
	// values, the header is removed.
	keep   bool
	values []string // templates
	field  string   // of the last operation
}

// merge executes the operations of the levels symbolically.
func (rx *routeContext) merge(scope headerScope, levels []headerLevel) []headerOutcome {
	var outcomes []headerOutcome
	at := func(name, field string) *headerOutcome {
		i := slices.IndexFunc(outcomes, func(h headerOutcome) bool { return h.name == name })
		if i < 0 {
			i = len(outcomes)
			outcomes = append(outcomes, headerOutcome{name: name, keep: true})
		}
		outcomes[i].field = field
		return &outcomes[i]
	}
	for _, level := range levels {
		// Within a level, Envoy removes first, then overwrites, then adds.
		for _, name := range level.remove {
			name = strings.ToLower(name)
			if field := level.fieldOf("_to_remove", name); rx.changeable(name, field) {
				h := at(name, field)
				h.keep, h.values = false, nil
			}
		}
		// Whether a header exists is asked before the level adds any.
		began := map[string]headerOutcome{}
		for _, h := range outcomes {
			began[h.name] = h
		}
		for _, overwriting := range []bool{true, false} {
			for _, option := range level.add {
				name := strings.ToLower(option.GetHeader().GetKey())
				field := level.fieldOf("_to_add", name)
				action := appendAction(option)
				if overwrites(action) != overwriting || !rx.changeable(name, field) {
					continue
				}
				template, ok := rx.headerTemplate(scope, option, field)
				if !ok {
					continue
				}
				h := at(name, field)
				before, mentioned := began[name]
				if !mentioned {
					before.keep = true
				}
				if why := h.apply(action, template, scope, before); why != "" {
					rx.report(codeHeaderLeftOut, field, name, why)
				}
			}
		}
	}
	// Headers that nothing happens to: all their operations were left out.
	return slices.DeleteFunc(outcomes, func(h headerOutcome) bool { return h.keep && len(h.values) == 0 })
}

// changeable tells whether APISIX can change a header, in lower case, and reports where it cannot.
func (rx *routeContext) changeable(name, field string) bool {
	switch {
	case strings.HasPrefix(name, ":"), name == "host":
		rx.report(codeHeaderLeftOut, field, name, "it is not a header of its own in APISIX")
	case name == "", strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }):
		rx.report(codeHeaderLeftOut, field, name, "it is not the name of a header")
	default:
		return true
	}
	return false
}

func (l headerLevel) fieldOf(ending, name string) string {
	if l.field == "" {
		return ""
	}
	return l.field + ending + "[" + strconv.Quote(name) + "]"
}

func overwrites(action corepb.HeaderValueOption_HeaderAppendAction) bool {
	return action == corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD ||
		action == corepb.HeaderValueOption_OVERWRITE_IF_EXISTS
}

// appendAction honours the deprecated field that append_action replaces.
func appendAction(option *corepb.HeaderValueOption) corepb.HeaderValueOption_HeaderAppendAction {
	//nolint:staticcheck // configuration for older Envoys still has it.
	if a := option.GetAppend(); a != nil && !a.GetValue() {
		return corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	}
	return option.GetAppendAction()
}

// apply executes one operation; why says why it cannot. before is the header when the level begins.
func (h *headerOutcome) apply(action corepb.HeaderValueOption_HeaderAppendAction, value string, scope headerScope, before headerOutcome) (why string) {
	exists := len(before.values) > 0 // beyond what the message may have
	switch action {
	case corepb.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
		h.values = append(h.values, value)
	case corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		h.keep, h.values = false, []string{value}
	case corepb.HeaderValueOption_ADD_IF_ABSENT:
		switch {
		case exists:
		case !before.keep:
			h.values = append(h.values, value)
		case len(h.values) > 0:
			return "it cannot be added to others only where it is absent"
		default:
			template, ok := apisix.VarOr(scope.variable(h.name), value)
			if !ok || strings.Contains(value, "$") {
				return "only plain text can be added where the header is absent"
			}
			h.keep, h.values = false, []string{template}
		}
	case corepb.HeaderValueOption_OVERWRITE_IF_EXISTS:
		switch {
		case exists:
			h.keep, h.values = false, []string{value}
		case before.keep:
			return "it cannot be overwritten only where it exists"
		}
	}
	return ""
}

// mayBeEmpty tells whether a template consists of nothing but headers and what else may be missing.
func mayBeEmpty(template string) bool {
	optional := regexp.MustCompile(`\$\{(?:http|upstream_http|sent_http|ssl|proxy_protocol_tlv)_[^}]*\}`)
	return template != "" && optional.ReplaceAllString(template, "") == ""
}

// headerTemplate returns the value of an operation as a template of APISIX. ok is false where there
// is nothing to do, or no way to do it.
func (rx *routeContext) headerTemplate(scope headerScope, option *corepb.HeaderValueOption, field string) (template string, ok bool) {
	name, value := option.GetHeader().GetKey(), option.GetHeader().GetValue()
	if value == "" {
		value = string(option.GetHeader().GetRawValue())
	}
	if value == "" {
		if !option.GetKeepEmptyValue() {
			return "", false // Envoy adds no empty headers either
		}
		rx.report(codeHeaderLeftOut, field, name, "nginx sends no header without a value")
		return "", overwrites(appendAction(option)) // by which it is removed
	}
	if !utf8.ValidString(value) {
		rx.report(codeHeaderLeftOut, field, name, "its value is not UTF-8, which JSON cannot carry")
		return "", false
	}
	template, unknown := scope.expand(rx, value)
	if unknown != "" {
		rx.report(codeHeaderLeftOut, field, name, "APISIX has no variable for "+unknown)
		return "", false
	}
	if mayBeEmpty(template) {
		rx.report(codeHeaderMayBeEmpty, field, name)
	}
	return template, true
}
