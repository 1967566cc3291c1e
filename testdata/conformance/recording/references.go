package recording

import (
	"slices"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// References are names of resources by type URL.
type References map[string]map[string]bool

func (r References) add(typeURL, name string) {
	if r[typeURL] == nil {
		r[typeURL] = map[string]bool{}
	}
	r[typeURL][name] = true
}

// Collect adds what a cluster or listener refers to.
func (r References) Collect(resource *anypb.Any) error {
	switch resource.GetTypeUrl() {
	case ClusterType:
		var c clusterpb.Cluster
		if err := resource.UnmarshalTo(&c); err != nil {
			return err
		}
		if c.GetType() == clusterpb.Cluster_EDS {
			name := c.GetEdsClusterConfig().GetServiceName()
			if name == "" {
				name = c.GetName()
			}
			r.add(EndpointType, name)
		}
		return r.collectSocket(c.GetTransportSocket())
	case ListenerType:
		var l listenerpb.Listener
		if err := resource.UnmarshalTo(&l); err != nil {
			return err
		}
		for _, chain := range append(slices.Clone(l.GetFilterChains()), l.GetDefaultFilterChain()) {
			if err := r.collectChain(chain); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r References) collectChain(chain *listenerpb.FilterChain) error {
	for _, filter := range chain.GetFilters() {
		var hcm http_connection_managerpb.HttpConnectionManager
		if !filter.GetTypedConfig().MessageIs(&hcm) {
			continue
		}
		if err := filter.GetTypedConfig().UnmarshalTo(&hcm); err != nil {
			return err
		}
		if hcm.GetRds() != nil {
			r.add(RouteType, hcm.GetRds().GetRouteConfigName())
		}
	}
	return r.collectSocket(chain.GetTransportSocket())
}

// collectSocket adds the secrets that are to be had from istiod.
func (r References) collectSocket(socket *corepb.TransportSocket) error {
	if socket.GetTypedConfig() == nil {
		return nil
	}
	message, err := socket.GetTypedConfig().UnmarshalNew()
	if err != nil {
		return err
	}
	withTLS, ok := message.(interface {
		GetCommonTlsContext() *tlspb.CommonTlsContext
	})
	if !ok {
		return nil
	}
	common := withTLS.GetCommonTlsContext()
	secrets := slices.Concat(common.GetTlsCertificateSdsSecretConfigs(), []*tlspb.SdsSecretConfig{
		common.GetValidationContextSdsSecretConfig(), common.GetCombinedValidationContext().GetValidationContextSdsSecretConfig(),
	})
	for _, secret := range secrets {
		if secret.GetSdsConfig().GetAds() != nil {
			r.add(SecretType, secret.GetName())
		}
	}
	return nil
}
