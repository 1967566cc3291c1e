package bridge

import (
	"bytes"
	"strings"

	"meshbridge/gateway"
	"meshbridge/store"
	"meshbridge/translate/apisix"
)

// directories are the collections that any supported APISIX reads. A key for each, ending in a
// slash, is always served: APISIX before 3.11 drops the first entry of every listing, taking it for
// this key.
var directories = []string{
	"consumer_groups", "consumers", "global_rules", "plugin_configs", "plugin_metadata", "plugins",
	"proto", "protos", "routes", "secrets", "services", "ssl", "ssls", "stream_routes", "upstreams",
}

// initDir is the value that APISIX itself gives to the keys of directories.
const initDir = "init_dir"

// ownership decides which keys clients may write. The bridge owns the ids that it could make, present
// or not, in the collections that it writes, and the directory of extensions what it has; everything else
// belongs to the user.
type ownership struct {
	dirs  map[string]bool // full keys of the directories
	owned []interval
	// prefix is of all keys, with the final slash; extensions have objects of users.
	prefix     string
	extensions *extensions
}

type interval struct{ key, end []byte }

// ownedIDs are the starts of the ids that the bridge makes: see apisix.OwnedID.
var ownedIDs = []string{"r.", "u.", "t.", "s.", "pc.", "g."}

var ownedKinds = []apisix.Kind{
	apisix.KindRoute, apisix.KindUpstream, apisix.KindStreamRoute, apisix.KindSSL, apisix.KindPluginConfig, apisix.KindGlobalRule,
}

func newOwnership(prefix string, extensions *extensions) *ownership {
	o := &ownership{dirs: map[string]bool{}, prefix: prefix + "/", extensions: extensions}
	for _, d := range directories {
		o.dirs[prefix+"/"+d+"/"] = true
	}
	for _, kind := range ownedKinds {
		for _, id := range ownedIDs {
			key := []byte(prefix + "/" + string(kind) + "/" + id)
			o.owned = append(o.owned, interval{key: key, end: store.Prefix(key)})
		}
	}
	return o
}

// admit is a gateway.Config.Admit. A put of a directory's key is accepted and changes nothing,
// because APISIX's start-up does it; its deletion would hurt old APISIX versions.
func (o *ownership) admit(w gateway.Write) gateway.Admission {
	if !w.Delete {
		if o.dirs[string(w.Key)] {
			return gateway.Ignored
		}
		for _, i := range o.owned {
			if bytes.HasPrefix(w.Key, i.key) {
				return gateway.Denied
			}
		}
		if o.extensions.defines(strings.TrimPrefix(string(w.Key), o.prefix)) {
			return gateway.Denied
		}
		return gateway.Admitted
	}
	for dir := range o.dirs {
		if intersects(w.Key, w.End, interval{key: []byte(dir), end: []byte(dir + "\x00")}) {
			return gateway.Denied
		}
	}
	for _, i := range o.owned {
		if intersects(w.Key, w.End, i) {
			return gateway.Denied
		}
	}
	touches := func(key string) bool {
		full := []byte(o.prefix + key)
		return intersects(w.Key, w.End, interval{key: full, end: append(full, 0)})
	}
	if o.extensions.any(touches) {
		return gateway.Denied
	}
	return gateway.Admitted
}

// intersects tells whether etcd's range [key, end) touches i. An empty end is the single key, and
// "\x00" is everything from key on.
func intersects(key, end []byte, i interval) bool {
	switch {
	case len(end) == 0:
		return bytes.Compare(key, i.key) >= 0 && bytes.Compare(key, i.end) < 0
	case bytes.Equal(end, []byte{0}):
		return bytes.Compare(key, i.end) < 0
	}
	return bytes.Compare(key, i.end) < 0 && bytes.Compare(i.key, end) < 0
}

// underPrefix tells whether etcd's range [key, end) touches the keys below the prefix. APISIX's
// first range asks for the prefix without a slash.
func underPrefix(prefix string, key, end []byte) bool {
	p := []byte(strings.TrimSuffix(prefix, "/"))
	return intersects(key, end, interval{key: p, end: store.Prefix(p)})
}
