package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"meshbridge/translate/apisix"
)

const (
	labelMesh        = "mesh"
	labelNode        = "node"
	labelListener    = "envoy.listener"
	labelRouteConfig = "envoy.rds"
	labelVirtualHost = "envoy.vhost"
)

// keySeparator cannot be part of a name in xDS.
const keySeparator = "\x00"

func canonicalKey(parts ...string) string { return strings.Join(parts, keySeparator) }

// defaultRetries is Istio's default, which has no suffix in ids.
const defaultRetries = 2

// suffix names what differs from the common variant of a cluster.
func (v variant) suffix() string {
	var b strings.Builder
	switch {
	case v.grpc:
		b.WriteString("~g")
	case v.mirrored:
		b.WriteString("~mirror")
	case v.tcp:
		b.WriteString("~tcp")
	}
	if v.retries != defaultRetries {
		b.WriteString("~r" + strconv.Itoa(v.retries))
	}
	if v.retryTimeout != 0 {
		b.WriteString("~t" + v.retryTimeout.String())
	}
	if v.hash != "" {
		b.WriteString("~h:" + v.hash)
	}
	if v.host != "" {
		b.WriteString("~a:" + v.host)
	}
	return b.String()
}

func (r upstreamRef) id() string {
	suffix := r.variant.suffix()
	return apisix.ID("u", readableCluster(r.cluster)+suffix, r.cluster+suffix)
}

// readableCluster shortens "outbound|80|v1|reviews.default.svc.cluster.local" to
// "80.v1.reviews.default" and "inbound|9080||" to "i.9080".
func readableCluster(name string) string {
	direction, rest, ok := strings.Cut(name, "|")
	switch {
	case !ok:
		return name
	case direction == "inbound":
		return "i." + rest
	case direction == "outbound":
		return rest
	}
	return name
}

// labels returns the labels of an object, from pairs of key and value.
func (s *State) labels(pairs ...string) map[string]string {
	labels := map[string]string{labelMesh: "istio"}
	pairs = append(pairs, labelNode, s.options.NodeID)
	for i := 0; i < len(pairs); i += 2 {
		if v := s.options.APISIXVersion.LabelValue(pairs[i+1]); v != "" {
			labels[pairs[i]] = v
		}
	}
	return labels
}

// origin returns the Istio object that istiod made a resource from, such as "VirtualService
// default/reviews"; empty where istiod does not say.
func origin(m *corepb.Metadata) string {
	return Origin(m.GetFilterMetadata()["istio"].GetFields()["config"].GetStringValue())
}

// Origin makes what istiod says in a resource's metadata (filter_metadata.istio.config) the name of an
// Istio object, such as "VirtualService default/reviews". What is no such path stays as it is.
func Origin(path string) string {
	// /apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(parts) != 7 || parts[0] != "apis" || parts[3] != "namespaces" {
		return path
	}
	var kind strings.Builder
	for word := range strings.SplitSeq(parts[5], "-") {
		if word != "" {
			kind.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return kind.String() + " " + parts[4] + "/" + parts[6]
}

// shortHash tells apart what has the same name.
func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}
