package bridge

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"meshbridge/cmd/internal/console"
	"meshbridge/store"
	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

// Spacing of the phases of a change. APISIX applies each collection in a thread of its own, in no
// order, so what routes refer to must have arrived before them, and goes long after them.
const (
	// routesAfter is the least time between upstreams and the routes that refer to them.
	routesAfter = 50 * time.Millisecond
	// garbageAfter is the least time between the last reference to an upstream, or the end of a chain, and
	// the removal of what was for it: a request in flight resolves its upstream late, and capture gets new
	// listeners late.
	garbageAfter = 30 * time.Second
)

// maxLoggedKeys bounds the line that is logged for a commit.
const maxLoggedKeys = 10

// writer turns translation results into transactions in three phases: what routes refer to and ssls
// with their deletions, then routes with theirs, then what lost its last reference. It is owned by the
// pipeline.
type writer struct {
	store   *store.Store
	prefix  string // of every key, with the final slash
	reserve func(next int64)
	metrics *metrics
	log     *slog.Logger
	journal *console.Journal // nil where nobody would look at it

	committed map[string][]byte    // what is in the store, by key below the prefix
	routes    map[string][]byte    // phase 2: nil is a deletion
	routesDue time.Time            // zero where routes is empty
	garbage   map[string]time.Time // phase 3: when each key may go
	served    served               // what capture is told of
	revision  int64                // of the last commit
	traces    *pushTraces          // nil where commits are not traced
}

func newWriter(s *store.Store, prefix string, base int64, reserve func(int64), m *metrics, log *slog.Logger) *writer {
	return &writer{
		store: s, prefix: prefix + "/", reserve: reserve, metrics: m, log: log, revision: base,
		committed: map[string][]byte{}, routes: map[string][]byte{}, garbage: map[string]time.Time{},
	}
}

// adopt goes on with what another process has committed, which are the keys. Below the prefix there may be
// others, of clients.
func (w *writer) adopt(s *store.Store, keys []string, reserve func(next int64)) error {
	w.reserve, w.revision = reserve, s.Revision()
	prefix := []byte(w.prefix)
	all, err := s.Range(prefix, store.Prefix(prefix), store.RangeOptions{})
	if err != nil {
		return fmt.Errorf("what is committed: %w", err)
	}
	own := make(map[string]bool, len(keys))
	for _, key := range keys {
		own[key] = true
	}
	for _, kv := range all.KVs {
		if key := strings.TrimPrefix(string(kv.Key), w.prefix); own[key] {
			w.committed[key] = kv.Value
			w.metrics.stored(key, 1)
		}
	}
	return nil
}

// first commits the first world, with the keys of the directories, as one transaction. What was committed
// before goes with it, except for what requests in flight may still refer to.
func (w *writer) first(now time.Time, objects []apisix.Object) (revision int64, err error) {
	changes := make(map[string][]byte, len(objects)+len(directories))
	for _, dir := range directories {
		changes[dir+"/"] = []byte(initDir)
	}
	for _, o := range objects {
		changes[o.Key()] = o.Value
	}
	for key := range w.committed {
		switch _, stays := changes[key]; {
		case stays:
		case isRoute(key):
			w.leave(now, key)
		case isSSL(key), revoked(key):
			changes[key] = nil
		default:
			w.garbage[key] = now.Add(garbageAfter)
		}
	}
	maps.Copy(changes, w.routes)
	clear(w.routes)
	if _, err := w.commit(changes); err != nil {
		return 0, err
	}
	return w.revision, nil
}

// add commits the first phase of the result and keeps the rest until it is due. The revision is 0
// where the first phase is empty.
func (w *writer) add(now time.Time, r translate.Result) (revision int64, err error) {
	first := map[string][]byte{}
	routes := w.serve(r.Capture.Listeners)
	for _, o := range r.Put {
		key := o.Key()
		delete(w.garbage, key)
		if !isRoute(key) {
			first[key] = o.Value
			continue
		}
		w.routes[key] = o.Value
		routes = true
	}
	for _, key := range r.Delete {
		switch {
		case isRoute(key):
			w.leave(now, key)
			routes = true
		case isSSL(key), revoked(key):
			first[key] = nil
		default:
			w.garbage[key] = now.Add(garbageAfter)
		}
	}
	if revision, err = w.commit(first); err != nil {
		return 0, err
	}
	if routes && w.routesDue.IsZero() {
		w.routesDue = now
	}
	if routes && revision != 0 {
		w.routesDue = now.Add(routesAfter)
	}
	return revision, nil
}

// flush commits what is due of the later phases; 0 where nothing was.
func (w *writer) flush(now time.Time) (revision int64, err error) {
	if !w.routesDue.IsZero() && !now.Before(w.routesDue) {
		if revision, err = w.commit(w.routes); err != nil {
			return 0, err
		}
		clear(w.routes)
		w.routesDue = time.Time{}
	}
	gone := map[string][]byte{}
	for key, at := range w.garbage {
		if !now.Before(at) {
			gone[key] = nil
			delete(w.garbage, key)
		}
	}
	last, err := w.commit(gone)
	return max(revision, last), err
}

// due returns when flush has something to do; zero is never.
func (w *writer) due() time.Time {
	next := w.routesDue
	for _, at := range w.garbage {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// commit makes the changes one transaction, hence one revision and one watch frame. What is in the
// store already is left out; an empty rest commits nothing and returns 0.
func (w *writer) commit(changes map[string][]byte) (int64, error) {
	ops := make([]store.Op, 0, len(changes))
	keys := make([]string, 0, len(changes))
	for key, value := range changes {
		old, have := w.committed[key]
		if value == nil && !have || value != nil && have && string(old) == string(value) {
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return 0, nil
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(phase(a), phase(b)), strings.Compare(a, b))
	})
	changed := make([]console.Change, 0, len(keys))
	for _, key := range keys {
		full := []byte(w.prefix + key)
		changed = append(changed, console.Change{Key: key, Before: w.committed[key], After: changes[key]})
		if value := changes[key]; value != nil {
			ops = append(ops, store.Op{Put: &store.PutOp{Key: full, Value: value}})
			if _, have := w.committed[key]; !have {
				w.metrics.stored(key, 1)
			}
			w.committed[key] = value
		} else {
			ops = append(ops, store.Op{Delete: &store.DeleteOp{Key: full}})
			w.metrics.stored(key, -1)
			delete(w.committed, key)
		}
	}
	w.reserve(w.revision + 1)
	began := time.Now()
	result, err := w.store.Txn(store.Txn{Success: ops})
	if err != nil {
		return 0, fmt.Errorf("commit of %d objects, the first is %s: %w", len(ops), keys[0], err)
	}
	w.revision = result.Revision
	w.journal.Add(result.Revision, time.Now(), changed)
	w.metrics.committed(len(ops), result.Revision)
	if w.traces != nil {
		w.traces.committed(began, result.Revision, len(ops))
	}
	w.log.Debug("committed",
		slog.Int64("revision", result.Revision), slog.Int("objects", len(ops)),
		slog.Any("keys", keys[:min(len(keys), maxLoggedKeys)]))
	return result.Revision, nil
}

// phase orders the keys of one transaction as APISIX would best apply them.
func phase(key string) int {
	if isRoute(key) {
		return 1
	}
	return 0
}

// isSSL tells ssls from what routes refer to: a server name may go from one to another, and must never
// have two, so that they are removed in the transaction that puts the others.
func isSSL(key string) bool {
	kind, _, _ := apisix.ParseKey(key)
	return kind == apisix.KindSSL
}

func isRoute(key string) bool {
	kind, _, _ := apisix.ParseKey(key)
	return kind == apisix.KindRoute || kind == apisix.KindStreamRoute
}

func isStreamRoute(key string) bool {
	kind, _, _ := apisix.ParseKey(key)
	return kind == apisix.KindStreamRoute
}
