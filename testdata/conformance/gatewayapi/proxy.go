package gatewayapi

import (
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/constants"
	"istio.io/istio/pkg/config/host"
	"istio.io/istio/pkg/config/protocol"
	"istio.io/istio/pkg/spiffe"
)

// gateway is a service that receives what Gateways are for.
type gateway struct {
	hostname           host.Name
	namespace, account string
	ip                 string
	ports              []*model.Port
}

// gatewaysOf returns the services that Istio's Gateways name, in their order.
func gatewaysOf(converted []config.Config) []*gateway {
	var out []*gateway
	for _, c := range converted {
		spec, ok := c.Spec.(*networking.Gateway)
		if !ok {
			continue
		}
		namespace := c.Namespace
		if parent := c.Annotations[constants.InternalParentNamespace]; parent != "" {
			namespace = parent
		}
		for hostname := range strings.SplitSeq(c.Annotations[model.InternalGatewayServiceAnnotation], ",") {
			i := slices.IndexFunc(out, func(g *gateway) bool { return string(g.hostname) == hostname && g.namespace == namespace })
			if i < 0 {
				i = len(out)
				out = append(out, &gateway{
					hostname: host.Name(hostname), namespace: namespace, account: c.Annotations[constants.InternalServiceAccount],
					ip: fmt.Sprintf("10.10.3.%d", i+1),
				})
			}
			for _, server := range spec.GetServers() {
				out[i].ports = withPort(out[i].ports, int(server.GetPort().GetNumber()), protocol.Parse(server.GetPort().GetProtocol()))
			}
		}
	}
	return out
}

// withPort adds a port if it is not there.
func withPort(ports []*model.Port, number int, p protocol.Instance) []*model.Port {
	if slices.ContainsFunc(ports, func(other *model.Port) bool { return other.Port == number }) {
		return ports
	}
	return append(ports, &model.Port{Name: fmt.Sprintf("port-%d", number), Port: number, Protocol: p})
}

// serve makes an instance of the service, with all ports of its Gateways: as Istio's controller of
// deployments would do, which its test does not run.
func (g *gateway) serve(ds *xds.FakeDiscoveryServer) {
	service := ds.MemRegistry.GetService(g.hostname)
	if service == nil {
		name, _, _ := strings.Cut(string(g.hostname), ".")
		service = &model.Service{
			Hostname: g.hostname, DefaultAddress: "10.96.3." + g.ip[strings.LastIndexByte(g.ip, '.')+1:],
			Attributes: model.ServiceAttributes{Name: name, Namespace: g.namespace},
		}
	}
	service = service.DeepCopy()
	for _, p := range g.ports {
		service.Ports = withPort(service.Ports, p.Port, p.Protocol)
	}
	ds.MemRegistry.AddService(service)
	addInstances(ds, service, g.ip)
}

func addInstances(ds *xds.FakeDiscoveryServer, service *model.Service, ip string) {
	for _, port := range service.Ports {
		ds.MemRegistry.AddInstance(&model.ServiceInstance{Service: service, ServicePort: port, Endpoint: &model.IstioEndpoint{
			Addresses: []string{ip}, EndpointPort: uint32(port.Port), ServicePortName: port.Name,
		}})
	}
}

// routersOf returns a proxy for each gateway.
func routersOf(gateways []*gateway) []*model.Proxy {
	var out []*model.Proxy
	for _, g := range gateways {
		name, _, _ := strings.Cut(string(g.hostname), ".")
		out = append(out, &model.Proxy{
			Type: model.Router, ID: name + "." + g.namespace, ConfigNamespace: g.namespace, IPAddresses: []string{g.ip},
			VerifiedIdentity: &spiffe.Identity{Namespace: g.namespace, ServiceAccount: g.account},
			Metadata:         &model.NodeMetadata{ClusterID: constants.DefaultClusterName},
		})
	}
	return out
}

// sidecarsOf returns a client in each namespace for which something may be special: where routes and
// policies are.
func sidecarsOf(converted []config.Config) []*model.Proxy {
	namespaces := []string{"default"}
	for _, c := range converted {
		route, ok := c.Spec.(*networking.VirtualService)
		if _, policy := c.Spec.(*networking.DestinationRule); policy || ok && slices.Contains(route.GetGateways(), constants.IstioMeshGateway) {
			namespaces = append(namespaces, c.Namespace)
		}
	}
	slices.Sort(namespaces)
	var out []*model.Proxy
	for i, namespace := range slices.Compact(namespaces) {
		out = append(out, &model.Proxy{
			Type: model.SidecarProxy, ID: "client." + namespace, ConfigNamespace: namespace,
			IPAddresses: []string{fmt.Sprintf("10.10.4.%d", i+1)},
			Metadata:    &model.NodeMetadata{ClusterID: constants.DefaultClusterName},
		})
	}
	return out
}
