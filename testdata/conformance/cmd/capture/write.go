package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	_ "github.com/cncf/xds/go/udpa/type/v1" // istiod's configuration of peer metadata is a TypedStruct
	"google.golang.org/protobuf/encoding/protojson"
	_ "istio.io/api/envoy/extensions/stats"
	_ "istio.io/istio/pkg/config/xds" // Envoy's filters, so that their configuration is written in words
	_ "istio.io/istio/pkg/dns/proto"
)

var fileNames = map[string]string{
	clusterType: "cds", endpointType: "eds", listenerType: "lds", routeType: "rds", secretType: "sds", nameType: "nds",
}

// write puts each type in a file of its own, sorted by name, as a
// DiscoveryResponse in JSON.
func write(dir string, resources received) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for typeURL, name := range fileNames {
		path := filepath.Join(dir, name+".json")
		if len(resources[typeURL]) == 0 {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			continue
		}
		text, err := format(typeURL, resources)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
		fmt.Printf("%s: %d resources\n", path, len(resources[typeURL]))
	}
	return nil
}

func format(typeURL string, resources received) ([]byte, error) {
	var response struct {
		Resources []any  `json:"resources"`
		TypeURL   string `json:"type_url"`
	}
	response.TypeURL = typeURL
	for _, name := range slices.Sorted(maps.Keys(resources[typeURL])) {
		// protojson's text is unstable on purpose; encoding/json's is not.
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(resources[typeURL][name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		var value any
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		response.Resources = append(response.Resources, value)
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	err := encoder.Encode(response)
	return b.Bytes(), err
}
