package envoytest

import (
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// mutation is what one level of the configuration does to headers.
type mutation struct {
	add    []*corepb.HeaderValueOption
	remove []string
}

// requestMutations and responseMutations are those of the route, in the order of execution: the
// later one wins. Those of a weighted cluster come first in any case.
func (s *Stream) requestMutations() []mutation {
	r, c := s.route, s.config.config
	return s.ordered(
		mutation{r.weighted.GetRequestHeadersToAdd(), r.weighted.GetRequestHeadersToRemove()},
		mutation{r.route.GetRequestHeadersToAdd(), r.route.GetRequestHeadersToRemove()},
		mutation{r.vhost.GetRequestHeadersToAdd(), r.vhost.GetRequestHeadersToRemove()},
		mutation{c.GetRequestHeadersToAdd(), c.GetRequestHeadersToRemove()},
	)
}

func (s *Stream) responseMutations() []mutation {
	r, c := s.route, s.config.config
	return s.ordered(
		mutation{r.weighted.GetResponseHeadersToAdd(), r.weighted.GetResponseHeadersToRemove()},
		mutation{r.route.GetResponseHeadersToAdd(), r.route.GetResponseHeadersToRemove()},
		mutation{r.vhost.GetResponseHeadersToAdd(), r.vhost.GetResponseHeadersToRemove()},
		mutation{c.GetResponseHeadersToAdd(), c.GetResponseHeadersToRemove()},
	)
}

func (s *Stream) ordered(weighted, route, vhost, config mutation) []mutation {
	if s.config.config.GetMostSpecificHeaderMutationsWins() {
		return []mutation{weighted, config, vhost, route}
	}
	return []mutation{weighted, route, vhost, config}
}

// mutate executes one level. Headers are removed first; then all values are computed, and only then
// set, those that overwrite before those that are added.
func (s *Stream) mutate(headers *headerMap, m mutation, response *headerMap) {
	for _, name := range m.remove {
		headers.remove(name)
	}
	var overwrite, add []Header
	for _, option := range m.add {
		name := strings.ToLower(option.GetHeader().GetKey())
		value := option.GetHeader().GetValue()
		if value == "" {
			value = string(option.GetHeader().GetRawValue())
		}
		value = s.format(value, response)
		if value == "" && !option.GetKeepEmptyValue() {
			continue
		}
		switch appendAction(option) {
		case corepb.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
			add = append(add, Header{name, value})
		case corepb.HeaderValueOption_ADD_IF_ABSENT:
			if !headers.has(name) {
				add = append(add, Header{name, value})
			}
		case corepb.HeaderValueOption_OVERWRITE_IF_EXISTS:
			if headers.has(name) {
				overwrite = append(overwrite, Header{name, value})
			}
		case corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			overwrite = append(overwrite, Header{name, value})
		}
	}
	for _, h := range overwrite {
		headers.set(h.Name, h.Value)
	}
	for _, h := range add {
		headers.add(h.Name, h.Value)
	}
}

// appendAction honours the deprecated field that append_action replaces.
func appendAction(option *corepb.HeaderValueOption) corepb.HeaderValueOption_HeaderAppendAction {
	//nolint:staticcheck // configuration for older Envoys still has it.
	if a := option.GetAppend(); a != nil && !a.GetValue() {
		return corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	}
	return option.GetAppendAction()
}
