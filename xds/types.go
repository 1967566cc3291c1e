package xds

import (
	"fmt"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

const connectionManagerType = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

// resourceType says how the resources of one type are subscribed to, named and followed. A type
// becomes known by a line in lookupType.
type resourceType struct {
	url string
	// wildcard types are subscribed to as a whole; the others by the names that refs yields.
	wildcard bool
	// opaque resources have no linked Go type: their bytes are kept, and checked by checkBody if that
	// is set.
	opaque    bool
	checkBody func(*anypb.Any) error
	// name returns the name that a decoded resource carries itself.
	name func(proto.Message) string
	// refs returns the resources that this one needs.
	refs func(proto.Message) ([]Key, error)
	// check finds what the constraints of the proto leave open.
	check func(proto.Message) error
	// kept resources stay when the server says that they are gone, for as long as others refer to
	// them, as in Envoy.
	kept bool
}

// lookupType returns how to treat a type. Any URL that is not listed gives a type whose resources
// are kept as they are, under the name on the wire.
func lookupType(url string) resourceType {
	switch url {
	case ClusterType:
		return resourceType{url: url, wildcard: true, name: nameOf[*clusterpb.Cluster], refs: clusterRefs}
	case EndpointType:
		return resourceType{url: url, name: loadAssignmentName}
	case ListenerType:
		return resourceType{url: url, wildcard: true, name: nameOf[*listenerpb.Listener], refs: listenerRefs}
	case RouteType:
		return resourceType{url: url, name: nameOf[*routepb.RouteConfiguration]}
	case SecretType:
		return resourceType{url: url, name: nameOf[*tlspb.Secret], check: checkSecret, kept: true}
	case ExtensionType:
		return resourceType{url: url, name: nameOf[*corepb.TypedExtensionConfig]}
	case NameTableType:
		// One resource without a name.
		return resourceType{url: url, wildcard: true, opaque: true, checkBody: checkNameTable}
	default:
		return resourceType{url: url, wildcard: true, opaque: true}
	}
}

func nameOf[T interface{ GetName() string }](m proto.Message) string {
	if t, ok := m.(T); ok {
		return t.GetName()
	}
	return ""
}

func loadAssignmentName(m proto.Message) string {
	cla, _ := m.(*endpointpb.ClusterLoadAssignment)
	return cla.GetClusterName()
}

// clusterRefs returns the load assignment of an EDS cluster: eds_cluster_config.service_name, or
// the cluster's own name where that is empty; and the secrets of its TLS context that are to be had over
// ADS. Those of transport_socket_matches are the workload's own.
func clusterRefs(m proto.Message) ([]Key, error) {
	c, _ := m.(*clusterpb.Cluster)
	refs := secretRefs(c.GetTransportSocket())
	if c.GetType() == clusterpb.Cluster_EDS {
		name := c.GetEdsClusterConfig().GetServiceName()
		if name == "" {
			name = c.GetName()
		}
		refs = append(refs, Key{Type: EndpointType, Name: name})
	}
	return refs, nil
}

// listenerRefs returns the route configurations that the HTTP connection managers of all filter
// chains name, and the secrets of their TLS contexts that are to be had over ADS. A connection
// manager that does not decode or is not valid fails the listener; filters of any other type are
// left to whoever reads the listener.
func listenerRefs(m proto.Message) ([]Key, error) {
	const apiListener = "api_listener"
	l, _ := m.(*listenerpb.Listener)
	var refs []Key
	follow := func(config *anypb.Any, where string) error {
		if config.GetTypeUrl() != connectionManagerType {
			return nil
		}
		manager := &http_connection_managerpb.HttpConnectionManager{}
		if err := config.UnmarshalTo(manager); err != nil {
			return fmt.Errorf("%s: HTTP connection manager: %w", where, err)
		}
		// Proxyless gRPC gets API listeners without the stat_prefix that Envoy insists on.
		if err := manager.Validate(); err != nil && where != apiListener {
			return fmt.Errorf("%s: HTTP connection manager: %w", where, err)
		}
		if name := manager.GetRds().GetRouteConfigName(); name != "" {
			refs = append(refs, Key{Type: RouteType, Name: name})
		}
		return nil
	}
	chain := func(c *listenerpb.FilterChain, where string) error {
		for _, f := range c.GetFilters() {
			if err := follow(f.GetTypedConfig(), where); err != nil {
				return err
			}
		}
		refs = append(refs, secretRefs(c.GetTransportSocket())...)
		return nil
	}
	for i, c := range l.GetFilterChains() {
		if err := chain(c, fmt.Sprintf("filter_chains[%d] %q", i, c.GetName())); err != nil {
			return nil, err
		}
	}
	if err := chain(l.GetDefaultFilterChain(), "default_filter_chain"); err != nil {
		return nil, err
	}
	return refs, follow(l.GetApiListener().GetApiListener(), apiListener)
}
