package translate

import (
	"strconv"
	"strings"
	"time"

	"meshbridge/translate/apisix"
)

// Sources are the names of the xDS resources that an object was made from, as far as it tells: in its
// labels (routes, plugin_configs), its name (upstreams, stream_routes) or its description (ssls). Long
// names are as they fit into labels and names (apisix.Version.LabelValue, apisix.Version.Name).
type Sources struct {
	Listener, RouteConfig, VirtualHost string
	// Cluster is what an upstream stands for. Its endpoints come from the cluster's load assignment.
	Cluster string
	// Secrets are those of an ssl.
	Secrets []string
	// Origin is the Istio object, where istiod names one.
	Origin string
}

// Parts of an ssl's description.
const (
	sslOf         = "certificates of "
	sslVerifiedBy = "; clients are verified with "
)

// SourcesOf reads what an object says in its name, its description and its labels.
func SourcesOf(kind apisix.Kind, name, description string, labels map[string]string) Sources {
	switch kind {
	case apisix.KindUpstream, apisix.KindStreamRoute:
		return Sources{Cluster: withoutVariant(name), Origin: description}
	case apisix.KindSSL:
		names, authority, verifies := strings.Cut(strings.TrimPrefix(description, sslOf), sslVerifiedBy)
		if names == "" {
			return Sources{} // releases without descriptions of ssls
		}
		s := Sources{Secrets: strings.Split(names, ", ")}
		if verifies {
			s.Secrets = append(s.Secrets, authority)
		}
		return s
	default:
		return Sources{
			Listener: labels[labelListener], RouteConfig: labels[labelRouteConfig], VirtualHost: labels[labelVirtualHost], Origin: description,
		}
	}
}

// withoutVariant takes what variant.suffix appended off the name of an upstream, which leaves its cluster.
func withoutVariant(name string) string {
	for _, free := range []string{"~h:", "~a:"} { // what follows is any text
		name, _, _ = strings.Cut(name, free)
	}
	cut := func(is func(last string) bool) {
		if i := strings.LastIndexByte(name, '~'); i >= 0 && is(name[i+1:]) {
			name = name[:i]
		}
	}
	cut(func(last string) bool {
		_, err := time.ParseDuration(strings.TrimPrefix(last, "t"))
		return err == nil && strings.HasPrefix(last, "t")
	})
	cut(func(last string) bool {
		_, err := strconv.Atoi(strings.TrimPrefix(last, "r"))
		return err == nil && strings.HasPrefix(last, "r")
	})
	cut(func(last string) bool { return last == "g" || last == "mirror" || last == "tcp" })
	return name
}
