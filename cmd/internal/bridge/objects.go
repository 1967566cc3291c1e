package bridge

import (
	"encoding/json"
	"net/http"
	"slices"

	"meshbridge/store"
	"meshbridge/translate/apisix"
)

const redacted = "[redacted]"

// serveObjects shows what APISIX has been given, by key below the prefix, without secrets.
func (b *Bridge) serveObjects(w http.ResponseWriter, _ *http.Request) {
	prefix := b.config.Prefix + "/"
	all, err := b.store.Range([]byte(prefix), store.Prefix([]byte(prefix)), store.RangeOptions{})
	if err != nil {
		writeText(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	shown := map[string]any{}
	for o := range objects(prefix, all.KVs) {
		var value any
		if err := json.Unmarshal(o.Value, &value); err != nil {
			value = redacted // what clients write need not be JSON
		}
		shown[o.Key()] = withoutSecrets(value, o.Kind == apisix.KindSSL)
	}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w) // there may be many: not another copy of them
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(map[string]any{"revision": all.Revision, "objects": shown})
}

// withoutSecrets replaces members whose name says that they are secret. Keys are so in certificates alone:
// elsewhere a key is what requests are told apart by.
func withoutSecrets(value any, isSSL bool) any {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			secret := slices.Contains([]string{"client_key", "private_key", "password", "secret", "client_secret", "token"}, name)
			if secret || isSSL && (name == "key" || name == "keys") {
				v[name] = redacted
				continue
			}
			v[name] = withoutSecrets(member, isSSL)
		}
	case []any:
		for i := range v {
			v[i] = withoutSecrets(v[i], isSSL)
		}
	}
	return value
}
