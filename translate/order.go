package translate

import (
	"slices"
	"strings"

	"meshbridge/translate/apisix"
)

// APISIX's radixtree tries an exact path first, then the prefixes from the longest to the shortest,
// and only within one path looks at priority. Envoy tries routes in list order. Lists are made to
// agree by bucket hoisting: a route that overlaps an earlier one must not be in a bucket that is
// tried before the earlier one's; it moves to the earlier one's bucket, and its path test becomes a
// condition. Most lists need no move at all.

// bucket is a path key of radixtree.
type bucket struct {
	exact bool
	path  string
}

func (b bucket) uri() string {
	if b.exact {
		return b.path
	}
	return b.path + "*"
}

// before tells whether radixtree tries b before o for a path that is in both.
func (b bucket) before(o bucket) bool {
	switch {
	case o.exact:
		return false
	case b.exact:
		return strings.HasPrefix(b.path, o.path)
	}
	return len(b.path) > len(o.path) && strings.HasPrefix(b.path, o.path)
}

// maxBucket keeps buckets well below APISIX's limit on a uri, 4096 bytes.
const maxBucket = 1024

// bucketOf returns the narrowest bucket for a test that parts returned, and whether being in the
// bucket implies passing the test.
func bucketOf(t pathTest) (b bucket, implies bool) {
	if t.fold {
		return bucket{path: "/"}, t.all()
	}
	// A * has a meaning anywhere in a path, and : had one in older routers.
	if t.kind == pathExact && !strings.ContainsAny(t.literal, "*:") && len(t.literal) <= maxBucket {
		return bucket{exact: true, path: t.literal}, true
	}
	// radixtree checks a pattern that ends in "/*" once more, as a PCRE with its literal part
	// unquoted: "/a+b/*" never matches "/a+b/x".
	end := strings.IndexFunc(t.literal, func(r rune) bool { return !plainInPattern(r) })
	if end < 0 {
		end = len(t.literal)
	}
	end = min(end, maxBucket)
	return bucket{path: t.literal[:end]}, t.kind == pathPrefix && end == len(t.literal)
}

func plainInPattern(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.~/@!,;=&'%", r)
}

// pathKeys is where a route goes in radixtree.
type pathKeys struct {
	parts   []pathTest
	buckets []bucket
	// conds has the path test where the buckets do not imply it.
	conds []apisix.Cond
}

func (k pathKeys) uris() []string {
	var uris []string
	for _, b := range k.buckets {
		if uri := b.uri(); !slices.Contains(uris, uri) {
			uris = append(uris, uri)
		}
	}
	return uris
}

// hoist places routes so that radixtree tries those that overlap in the order of the list, given
// that priority falls along it.
func hoist(tests []pathTest) []pathKeys {
	placed := make([]pathKeys, 0, len(tests))
	for _, test := range tests {
		keys := pathKeys{parts: test.parts()}
		implied := true
		for _, part := range keys.parts {
			b, implies := bucketOf(part)
			narrowest := b
			for _, earlier := range placed {
				for i, other := range earlier.parts {
					if b.before(earlier.buckets[i]) && part.intersects(other) {
						b = earlier.buckets[i]
					}
				}
			}
			implied = implied && implies && b == narrowest
			keys.buckets = append(keys.buckets, b)
		}
		if !implied && !test.all() {
			keys.conds = []apisix.Cond{test.cond()}
		}
		placed = append(placed, keys)
	}
	return placed
}
