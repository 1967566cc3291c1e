package telemetry

import (
	"encoding/json"
	"net/netip"
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// World is what the bridge knows. Its methods are safe for concurrent use.
type World interface {
	// Chain returns the filter chain with a key, or nil.
	Chain(key string) *translate.Chain
	// Object returns an object of APISIX in JSON, or nil.
	Object(kind apisix.Kind, id string) []byte
	// Resource returns a resource as istiod sent it, or nil.
	Resource(key xds.Key) *xds.Resource
	// Overlay returns the endpoint that capture stands for at an address, or nil.
	Overlay(address netip.Addr) *translate.OverlayEndpoint
	// OverlayOf returns the endpoints of a cluster that capture stands for.
	OverlayOf(cluster string) []*translate.OverlayEndpoint
	// Principal is the SPIFFE ID of the workload's certificate; empty without one.
	Principal() string
}

// route is what of an APISIX route tells why a request went as it did.
type route struct {
	Name     string `json:"name"`
	Upstream string `json:"upstream_id"`
	Plugins  struct {
		Fault struct {
			Abort *struct {
				Status int `json:"http_status"`
			} `json:"abort"`
		} `json:"fault-injection"`
	} `json:"plugins"`
}

// chain is the key of the filter chain: the first part of the name.
func (r *route) chain() string {
	key, _, _ := strings.Cut(r.Name, "|")
	return key
}

// terminal tells that the route answers what no other takes.
func (r *route) terminal() bool {
	return r.Upstream == "" && (strings.HasSuffix(r.Name, "|404") || strings.HasSuffix(r.Name, "|missing") || strings.HasSuffix(r.Name, "|empty"))
}

// invented tells that the route is none of Envoy's.
func (r *route) invented() bool {
	return r.terminal() || r.Upstream == "" && (strings.HasSuffix(r.Name, "|denied") || strings.HasSuffix(r.Name, "|https"))
}

// envoyRoute is the name of the route in Envoy: the last part of the name. The virtual host before it may have
// more parts ("inbound|http|9080").
func (r *route) envoyRoute() string {
	return r.Name[strings.LastIndexByte(r.Name, '|')+1:]
}

func routeOf(w World, id string) (*route, bool) {
	if key, ok := strings.CutPrefix(id, chainPrefix); ok {
		return &route{Name: key + "||404"}, true
	}
	data := w.Object(apisix.KindRoute, id)
	r := new(route)
	if data == nil || json.Unmarshal(data, r) != nil {
		return nil, false
	}
	return r, true
}

// clusterOfUpstream returns the name of the cluster that an upstream is made from: the upstream's name says
// it, with what is special about the upstream after a tilde.
func clusterOfUpstream(w World, id string) string {
	data := w.Object(apisix.KindUpstream, id)
	var u struct {
		Name string `json:"name"`
	}
	if data == nil || json.Unmarshal(data, &u) != nil {
		return ""
	}
	name, _, _ := strings.Cut(u.Name, "~")
	return name
}

// destination is what a cluster says of the service behind it.
type destination struct {
	host, name, namespace string
	// stat is the cluster's alt_stat_name.
	stat string
	// endpoints is the name of its EDS resource.
	endpoints string
	// original tells that there are none: the endpoint is where the client wanted to go.
	original bool
}

func destinationOf(r *xds.Resource) (destination, bool) {
	if r == nil {
		return destination{}, false
	}
	c, err := xds.Decode[*clusterpb.Cluster](r)
	if err != nil {
		return destination{}, false
	}
	d := destination{endpoints: c.GetName(), stat: c.GetAltStatName(), original: c.GetType() == clusterpb.Cluster_ORIGINAL_DST}
	if name := c.GetEdsClusterConfig().GetServiceName(); name != "" {
		d.endpoints = name
	}
	services := c.GetMetadata().GetFilterMetadata()["istio"].GetFields()["services"].GetListValue().GetValues()
	if len(services) > 0 {
		d.host, d.name, d.namespace = serviceOf(services[0].GetStructValue())
	}
	return d, true
}

func serviceOf(s *structpb.Struct) (host, name, namespace string) {
	host = s.GetFields()["host"].GetStringValue()
	if name = s.GetFields()["name"].GetStringValue(); name == "" {
		name, _, _ = strings.Cut(host, ".")
	}
	return host, name, s.GetFields()["namespace"].GetStringValue()
}
