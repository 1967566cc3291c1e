// Package recording writes what istiod sends to a proxy in the form of the files that the main module
// reads, and finds out what a proxy asks for.
package recording

import "google.golang.org/protobuf/types/known/anypb"

// The type URLs of what istiod sends.
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	SecretType   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	NameType     = "type.googleapis.com/istio.networking.nds.v1.NameTable"
)

// Resources are what a proxy was sent, by type URL and name.
type Resources map[string]map[string]*anypb.Any
