package apisixtest

import (
	"encoding/json"
	"strings"
)

// dir is the state that APISIX keeps of one directory. The client's mutex guards it.
type dir struct {
	key        string // "/apisix/routes"
	traits     *traits
	prevIndex  int64
	needReload bool
	items      map[string]keyValue // by full key
}

// object tells whether a value is what APISIX can load, and whether it is JSON at all.
func isObject(value []byte) (object, valid bool) {
	var decoded any
	if json.Unmarshal(value, &decoded) != nil {
		return false, false
	}
	_, object = decoded.(map[string]any)
	return object, true
}

// load replaces everything by what a range has returned. It reports an item that was kept although its
// value is another one.
func (d *dir) load(kvs []keyValue, revision int64) (stale string) {
	before := d.items
	d.items = make(map[string]keyValue)
	if len(kvs) > 0 && (d.traits.needsDirKeys || kvs[0].key == d.key+"/") {
		kvs = kvs[1:]
	}
	if !d.traits.indexOnlyRises {
		d.prevIndex = 0
	}
	for _, kv := range kvs {
		old, known := before[kv.key]
		object, _ := isObject(kv.value)
		switch {
		case d.traits.keepsUnchanged && known && (old.modRevision == kv.modRevision || !object):
			d.items[kv.key] = old
			if object && string(old.value) != string(kv.value) {
				stale = kv.key
			}
		case object:
			d.items[kv.key] = kv
		}
		d.saw(kv.modRevision)
	}
	d.saw(revision)
	d.needReload = false
	return stale
}

func (d *dir) saw(revision int64) { d.prevIndex = max(d.prevIndex, revision) }

// covers tells whether an event is the directory's. As in APISIX it is so by the prefix alone.
func (d *dir) covers(key string) bool { return strings.HasPrefix(key, d.key) }

// apply takes events in.
func (d *dir) apply(events []keyValue) {
	for _, kv := range events {
		if !d.covers(kv.key) {
			continue
		}
		d.saw(kv.modRevision)
		object, valid := isObject(kv.value)
		switch {
		case kv.value == nil || !valid:
			delete(d.items, kv.key)
		case object:
			d.items[kv.key] = kv
		}
	}
}
