package xds

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	meshpb "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"
)

// Files that the downward API writes into an injected pod.
const (
	podLabelsFile      = "/etc/istio/pod/labels"
	podAnnotationsFile = "/etc/istio/pod/annotations"
)

const (
	metaPrefix     = "ISTIO_META_"
	metaJSONPrefix = "ISTIO_METAJSON_"
)

// NodeFromEnvironment reads the identity of a pod the way Istio's agent does, from what Istio's
// injector gives to the proxy's container: the variables POD_NAME, POD_NAMESPACE, INSTANCE_IP
// (several with commas between them), SERVICE_ACCOUNT, TRUST_DOMAIN, PROXY_CONFIG, ISTIO_META_* and
// ISTIO_METAJSON_*, and the downward API's files of labels and annotations, which need not exist.
// environ is os.Environ() and readFile is os.ReadFile, outside tests. The result may lack what is
// required: NodeConfig.Node tells, so that flags can add to it first. An error names the variables
// and files that cannot be understood; the result then holds the rest.
func NodeFromEnvironment(environ []string, readFile func(string) ([]byte, error)) (NodeConfig, error) {
	e := environment{variables: map[string]string{}, metadata: map[string]any{}}
	for _, variable := range environ {
		if name, value, ok := strings.Cut(variable, "="); ok {
			e.variables[name] = value
		}
	}
	config := NodeConfig{
		PodName:        e.variables["POD_NAME"],
		Namespace:      e.variables["POD_NAMESPACE"],
		ServiceAccount: e.variables["SERVICE_ACCOUNT"],
		IPs:            e.addresses("INSTANCE_IP"),
		ProxyConfig:    e.proxyConfig(),
		Labels:         e.labels(),
		Metadata:       e.metadata,
	}
	// Later ones take precedence.
	for name, value := range config.ProxyConfig.GetProxyMetadata() {
		e.meta(name, value)
	}
	for _, name := range slices.Sorted(maps.Keys(e.variables)) {
		e.meta(name, e.variables[name])
	}
	for _, field := range []struct {
		key string
		to  *string
	}{
		{"CLUSTER_ID", &config.ClusterID},
		{"MESH_ID", &config.MeshID},
		{"NETWORK", &config.Network},
		{"NODE_NAME", &config.NodeName},
		{"WORKLOAD_NAME", &config.WorkloadName},
		{"OWNER", &config.Owner},
		{"ISTIO_VERSION", &config.IstioVersion},
		{"INTERCEPTION_MODE", &config.InterceptionMode},
	} {
		if value, ok := e.metadata[field.key].(string); ok {
			*field.to = value
			delete(e.metadata, field.key)
		}
	}
	config.MeshID = cmp.Or(config.MeshID, e.variables["TRUST_DOMAIN"])

	if labels := e.downward(podLabelsFile, readFile); labels != nil {
		// It names a ReplicaSet, not the workload.
		delete(labels, "pod-template-hash")
		config.Labels = merged(config.Labels, labels)
	}
	config.Annotations = e.downward(podAnnotationsFile, readFile)
	return config, errors.Join(e.errs...)
}

type environment struct {
	variables map[string]string
	metadata  map[string]any
	errs      []error
}

func (e *environment) fail(name string, err error) {
	e.errs = append(e.errs, fmt.Errorf("%s: %w", name, err))
}

// meta takes in a variable of node metadata. The value of ISTIO_METAJSON_* is an object whose keys
// are metadata of their own; what follows the prefix is only a label for people.
func (e *environment) meta(name, value string) {
	if key, ok := strings.CutPrefix(name, metaPrefix); ok && key != "" {
		e.metadata[key] = value
	}
	if strings.HasPrefix(name, metaJSONPrefix) && name != metaJSONPrefix+"LABELS" {
		var values map[string]any
		if err := json.Unmarshal([]byte(value), &values); err != nil {
			e.fail(name, err)
		}
		maps.Copy(e.metadata, values)
	}
}

func (e *environment) labels() map[string]string {
	const name = metaJSONPrefix + "LABELS"
	value := e.variables[name]
	if value == "" {
		return nil
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(value), &labels); err != nil {
		e.fail(name, err)
	}
	return labels
}

func (e *environment) addresses(name string) []netip.Addr {
	var addresses []netip.Addr
	for text := range strings.SplitSeq(e.variables[name], ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		address, err := netip.ParseAddr(text)
		if err != nil {
			e.fail(name, err)
			continue
		}
		if !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

func (e *environment) proxyConfig() *meshpb.ProxyConfig {
	const name = "PROXY_CONFIG"
	value := strings.TrimSpace(e.variables[name])
	if value == "" {
		return nil
	}
	// The injector writes JSON, people write YAML.
	asJSON, err := yaml.YAMLToJSON([]byte(value))
	if err != nil {
		e.fail(name, err)
		return nil
	}
	config := &meshpb.ProxyConfig{}
	// A newer injector may set what this release of the API does not know.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(asJSON, config); err != nil {
		e.fail(name, err)
		return nil
	}
	return config
}

// downward reads lines of the form key="value", with Go's quoting.
func (e *environment) downward(path string, readFile func(string) ([]byte, error)) map[string]string {
	content, err := readFile(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			e.fail(path, err)
		}
		return nil
	}
	values := map[string]string{}
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		key, quoted, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			e.fail(path, fmt.Errorf("line %d: value of %s is not quoted: %w", number, key, err))
			continue
		}
		values[key] = value
	}
	return values
}

func merged(base, over map[string]string) map[string]string {
	if base == nil {
		return over
	}
	maps.Copy(base, over)
	return base
}
