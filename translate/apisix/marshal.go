package apisix

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Marshal encodes a Route, Upstream, PluginConfig or any other value as the object kind/id. Equal
// values give equal bytes: struct fields keep their order, map keys are sorted, and < > & stay as
// they are, so that regular expressions remain readable in etcd.
func Marshal(kind Kind, id string, v any) (Object, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return Object{}, fmt.Errorf("%s/%s: encode: %w", kind, id, err)
	}
	return Object{Kind: kind, ID: id, Value: bytes.TrimSuffix(b.Bytes(), []byte("\n"))}, nil
}
