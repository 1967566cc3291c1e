package recording

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	_ "github.com/cncf/xds/go/udpa/type/v1" // istiod's configuration of peer metadata is a TypedStruct
	"google.golang.org/protobuf/encoding/protojson"
	_ "istio.io/api/envoy/extensions/stats"
	_ "istio.io/istio/pkg/config/xds" // Envoy's filters, so that their configuration is written in words
	dnspb "istio.io/istio/pkg/dns/proto"
)

var fileNames = map[string]string{
	ClusterType: "cds", EndpointType: "eds", ListenerType: "lds", RouteType: "rds", SecretType: "sds", NameType: "nds",
}

// Write puts each type in a file of its own, sorted by name, as a
// DiscoveryResponse in JSON.
func Write(dir string, resources Resources) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	renumber, err := renumbering(resources)
	if err != nil {
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
		text, err := format(typeURL, resources, renumber)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// allocated are the addresses that istiod deals out to hosts without one.
var allocated = regexp.MustCompile(`240\.240\.\d+\.\d+`)

// renumbering deals the allocated addresses out again, in the order of the
// hosts' names: istiod does it in the order in which its queue comes to them.
func renumbering(resources Resources) (func([]byte) []byte, error) {
	var table dnspb.NameTable
	for _, resource := range resources[NameType] {
		if err := resource.UnmarshalTo(&table); err != nil {
			return nil, err
		}
	}
	numbers := map[string]string{}
	for _, host := range slices.Sorted(maps.Keys(table.GetTable())) {
		for _, address := range table.GetTable()[host].GetIps() {
			if allocated.MatchString(address) && numbers[address] == "" {
				numbers[address] = fmt.Sprintf("240.240.0.%d", len(numbers)+1)
			}
		}
	}
	return func(text []byte) []byte {
		return allocated.ReplaceAllFunc(text, func(address []byte) []byte {
			if number := numbers[string(address)]; number != "" {
				return []byte(number)
			}
			return address
		})
	}, nil
}

func format(typeURL string, resources Resources, renumber func([]byte) []byte) ([]byte, error) {
	var response struct {
		Resources []any  `json:"resources"`
		TypeURL   string `json:"type_url"`
	}
	response.TypeURL = typeURL
	values := map[string]any{}
	for name, resource := range resources[typeURL] {
		// protojson's text is unstable on purpose; encoding/json's is not.
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(resource)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		var value any
		decoder := json.NewDecoder(bytes.NewReader(renumber(text)))
		decoder.UseNumber()
		if err := decoder.Decode(&value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		values[string(renumber([]byte(name)))] = value
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		response.Resources = append(response.Resources, values[name])
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	err := encoder.Encode(response)
	return b.Bytes(), err
}
