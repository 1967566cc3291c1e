package bridge

import (
	"encoding/json"
	"iter"
	"net/http"
	"strings"

	"meshbridge/cmd/internal/explain"
	"meshbridge/store"
	"meshbridge/translate/apisix"
)

// maxExplainBody bounds the query; it holds one request's headers.
const maxExplainBody = 1 << 20

// serveExplain answers an explain.Query about what is in the store now: what APISIX has been given.
func (b *Bridge) serveExplain(w http.ResponseWriter, r *http.Request) {
	var q explain.Query
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxExplainBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&q); err != nil {
		writeText(w, http.StatusBadRequest, "query: "+err.Error()+"\n")
		return
	}
	view := b.pipeline.view.Load()
	if view == nil {
		writeText(w, http.StatusServiceUnavailable, "the first complete configuration has not been committed\n")
		return
	}
	prefix := b.config.Prefix + "/"
	all, err := b.store.Range([]byte(prefix), store.Prefix([]byte(prefix)), store.RangeOptions{})
	if err != nil {
		writeText(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	world := explain.World{Profile: b.config.Translate.Profile, Chains: view.Chains, Objects: objects(prefix, all.KVs)}
	if b.pipeline.tokens != nil {
		world.Ask = b.pipeline.tokens.Ask
	}
	answer, err := explain.Explain(world, q)
	if err != nil {
		writeText(w, http.StatusBadRequest, err.Error()+"\n")
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// objects yields what is stored below the prefix, without the keys of the directories.
func objects(prefix string, kvs []*store.KeyValue) iter.Seq[apisix.Object] {
	return func(yield func(apisix.Object) bool) {
		for _, kv := range kvs {
			kind, id, ok := apisix.ParseKey(strings.TrimPrefix(string(kv.Key), prefix))
			if ok && !yield(apisix.Object{Kind: kind, ID: id, Value: kv.Value}) {
				return
			}
		}
	}
}
