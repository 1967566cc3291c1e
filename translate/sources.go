package translate

import (
	"encoding/json"
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

// SourcesOf reads what an object's labels, name and description say.
func SourcesOf(o apisix.Object) (Sources, error) {
	var said struct {
		Name, Desc string
		Labels     map[string]string
	}
	if err := json.Unmarshal(o.Value, &said); err != nil {
		return Sources{}, err
	}
	switch o.Kind {
	case apisix.KindUpstream, apisix.KindStreamRoute:
		return Sources{Cluster: withoutVariant(said.Name), Origin: said.Desc}, nil
	case apisix.KindSSL:
		names, authority, verifies := strings.Cut(strings.TrimPrefix(said.Desc, sslOf), sslVerifiedBy)
		if names == "" {
			return Sources{}, nil // releases without descriptions of ssls
		}
		s := Sources{Secrets: strings.Split(names, ", ")}
		if verifies {
			s.Secrets = append(s.Secrets, authority)
		}
		return s, nil
	default:
		return Sources{
			Listener: said.Labels[labelListener], RouteConfig: said.Labels[labelRouteConfig],
			VirtualHost: said.Labels[labelVirtualHost], Origin: said.Desc,
		}, nil
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
