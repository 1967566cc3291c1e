package apisix

import (
	"cmp"
	"slices"
	"strings"
)

// pathTree is a model of lua-resty-radixtree as APISIX's default routers use it (parameters off):
// a pattern without "*" is looked up in a hash table, before everything else; one with "*" is cut
// there and is a prefix, tried from the longest to the shortest. Priority orders only entries of
// the very same key.
type pathTree struct {
	exact    map[string][]*pathEntry
	prefixes map[string][]*pathEntry
	lengths  []int // of the keys in prefixes, descending, without duplicates
}

// pathEntry is one pattern of one route or, in the tree of hosts, of one host.
type pathEntry struct {
	pattern string
	route   *routeEntry // nil in the tree of hosts
	hosts   *pathTree   // the routes of a host, in the tree of hosts
	ssl     *SSL        // in the tree of server names, where route and hosts are nil
	recheck *pathRecheck
}

func newPathTree() *pathTree {
	return &pathTree{exact: map[string][]*pathEntry{}, prefixes: map[string][]*pathEntry{}}
}

// insert adds an entry. Among equal priorities the longer pattern comes first, then the earlier
// insertion.
func (t *pathTree) insert(e *pathEntry) {
	table, key := t.exact, e.pattern
	if star := strings.IndexByte(e.pattern, '*'); star >= 0 {
		table, key = t.prefixes, e.pattern[:star]
		e.recheck = newPathRecheck(e.pattern)
		if i, found := slices.BinarySearchFunc(t.lengths, len(key), func(a, b int) int { return cmp.Compare(b, a) }); !found {
			t.lengths = slices.Insert(t.lengths, i, len(key))
		}
	}
	entries := table[key]
	// The position behind all that are not after e: a binary search, as a bucket may have thousands.
	i, _ := slices.BinarySearchFunc(entries, e, func(other, e *pathEntry) int {
		if comparePathEntries(other, e) <= 0 {
			return -1
		}
		return 1
	})
	table[key] = slices.Insert(entries, i, e)
}

func comparePathEntries(a, b *pathEntry) int {
	return cmp.Or(cmp.Compare(b.priority(), a.priority()), cmp.Compare(len(b.pattern), len(a.pattern)))
}

func (e *pathEntry) priority() int {
	if e.route == nil {
		return 0
	}
	return e.route.Priority
}

// candidates yields the entries whose key fits the path, in the order in which APISIX tries them.
func (t *pathTree) candidates(path string, yield func(e *pathEntry) bool) bool {
	for _, e := range t.exact[path] {
		if !yield(e) {
			return false
		}
	}
	start, _ := slices.BinarySearchFunc(t.lengths, len(path), func(a, b int) int { return cmp.Compare(b, a) })
	for _, length := range t.lengths[start:] {
		for _, e := range t.prefixes[path[:length]] {
			if !yield(e) {
				return false
			}
		}
	}
	return true
}

// maxWildcard is how many bytes the expression of a bare "*" segment matched on APISIX 3.18 before
// PCRE ran out of its stack. It differs by some hundred bytes between builds.
const maxWildcard = 6398

// pathRecheck is the second look that radixtree takes at a pattern with a segment that begins with
// "*" or ":": the whole pattern, as it was configured, becomes a regular expression, in which such
// segments are wildcards and everything else is raw PCRE.
type pathRecheck struct {
	// literal is the length of what precedes the only wildcard, the last segment, in the common
	// case where the rest of the pattern has nothing special.
	literal int
	// re is nil in the common case and where err is set.
	re  *pcre
	err error
}

// newPathRecheck returns nil where radixtree does not look twice.
func newPathRecheck(pattern string) *pathRecheck {
	segments := strings.Split(pattern, "/")
	special := false
	for i, segment := range segments {
		switch {
		case strings.HasPrefix(segment, ":"):
			segments[i] = `([^\/]+)`
		case strings.HasPrefix(segment, "*"):
			segments[i] = `((?:.|\n)*)`
		default:
			continue
		}
		special = true
	}
	if !special {
		return nil
	}
	prefix, bare := strings.CutSuffix(pattern, "*")
	if bare && (prefix == "" || strings.HasSuffix(prefix, "/")) && !hasPathMeta(prefix) {
		return &pathRecheck{literal: len(prefix)}
	}
	for len(segments) > 0 && segments[len(segments)-1] == "" { // as ngx.re.split drops them
		segments = segments[:len(segments)-1]
	}
	expression := strings.Join(segments, `\/`)
	if strings.HasSuffix(pattern, "/") {
		expression += `\/`
	}
	re, err := compilePCRE(expression, false)
	return &pathRecheck{re: re, err: err}
}

// hasPathMeta tells whether a path has something that is not a literal in the second look. A dot
// is harmless, because the literal prefix was compared before.
func hasPathMeta(path string) bool {
	return strings.ContainsAny(path, `\+*?()[]{}|^$`) || strings.HasPrefix(path, ":") || strings.Contains(path, "/:")
}

// check returns why the path does not match, empty where it does.
func (r *pathRecheck) check(path string) string {
	switch {
	case r == nil:
		return ""
	case r.err != nil:
		return "the pattern is read as a regular expression: " + r.err.Error()
	case len(path) > r.literal+maxWildcard:
		return "a pattern that ends in a bare * does not match paths of more than 6 KB"
	case r.re != nil && !r.re.matchWhole(path):
		return "the pattern is read as a regular expression, which does not match"
	}
	return ""
}
