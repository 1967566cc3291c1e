package console

import (
	"strconv"
	"strings"
)

// segment is a part of a diagnostic's field: a name, and what picks an element of it.
type segment struct {
	name string
	// key is `"name"` without quotes, or a number; has tells whether there is one.
	key string
	has bool
}

// parseField splits a path such as `virtual_hosts["a.b"].routes[0].route`.
func parseField(field string) []segment {
	var path []segment
	for field != "" {
		var s segment
		end := strings.IndexAny(field, ".[")
		if end < 0 {
			end = len(field)
		}
		s.name, field = field[:end], field[end:]
		if strings.HasPrefix(field, "[") {
			s.has = true
			if rest, quoted := strings.CutPrefix(field, `["`); quoted {
				// A name may hold any character but is followed by `"]`.
				s.key, field, _ = strings.Cut(rest, `"]`)
			} else {
				s.key, field, _ = strings.Cut(field[1:], "]")
			}
		}
		field = strings.TrimPrefix(field, ".")
		path = append(path, s)
	}
	return path
}

// maxMarked bounds how often one diagnostic is shown in a resource.
const maxMarked = 20

// find returns the parts of a resource that a field names, or the nearest around them; none where there is
// nothing of it. Fields are relative: of a listener they may begin at a filter chain, a filter or within
// one, and they leave out what only wraps a configuration.
func (n *node) find(field string) []*node {
	path := parseField(field)
	if len(path) == 0 {
		return nil
	}
	starts := n.pick(path[0])
	if len(starts) == 0 {
		n.search(path[0], &starts)
	}
	var found []*node
	for _, start := range starts[:min(len(starts), maxMarked)] {
		found = append(found, start.descend(path[1:]))
	}
	return found
}

// descend follows a path as far as it goes.
func (n *node) descend(path []segment) *node {
	for len(path) > 0 {
		next := n.pick(path[0])
		if len(next) == 0 {
			n.search(path[0], &next)
		}
		if len(next) == 0 {
			return n
		}
		n, path = next[0], path[1:]
	}
	return n
}

// pick returns the field that a segment names, in an object or in the configuration that it wraps.
func (n *node) pick(s segment) []*node {
	value := n.child(s.name)
	if value == nil {
		if config := n.child("typed_config"); config != nil {
			return config.pick(s)
		}
		return nil
	}
	if !s.has {
		return []*node{value}
	}
	if i, err := strconv.Atoi(s.key); err == nil && value.list {
		if i < len(value.values) {
			return []*node{value.values[i]}
		}
		return nil
	}
	if value.object {
		if element := value.child(s.key); element != nil {
			return []*node{element}
		}
		return nil
	}
	for _, field := range []string{"name", "cluster"} { // what elements are called by
		var called []*node
		for _, element := range value.values {
			if name := element.child(field); name != nil && name.text() == s.key {
				called = append(called, element)
			}
		}
		if len(called) > 0 {
			return called
		}
	}
	return nil
}

// search collects what a segment names anywhere below.
func (n *node) search(s segment, found *[]*node) {
	for _, value := range n.values {
		if len(*found) >= maxMarked {
			return
		}
		if value.isOf(s) {
			*found = append(*found, value)
			continue
		}
		if here := value.pick(s); len(here) > 0 {
			*found = append(*found, here...)
			continue
		}
		value.search(s, found)
	}
}

// isOf tells whether a filter's configuration is of the kind by whose name fields call it.
func (n *node) isOf(s segment) bool {
	kind := map[string]string{
		"http_connection_manager": ".HttpConnectionManager", "tcp_proxy": ".TcpProxy",
	}[s.name]
	return kind != "" && strings.HasSuffix(n.child("@type").text(), kind)
}
