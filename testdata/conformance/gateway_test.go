package conformance

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meshbridge/testdata/conformance/harness"
)

// ingressFlags make the bridge the data plane of an ingress gateway.
var ingressFlags = []string{
	"--profile=gateway",
	"--node-id=router~127.0.3.1~ingress-0.istio-ingress~istio-ingress.svc.cluster.local",
	`--node-metadata={"LABELS":{"istio":"ingressgateway"}}`,
}

const ingress = `
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: istio-ingress}
spec:
  clusterIP: 10.96.0.100
  clusterIPs: [10.96.0.100]
  selector: {istio: ingressgateway}
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]
---
apiVersion: v1
kind: Pod
metadata: {name: ingress-0, namespace: istio-ingress, labels: {istio: ingressgateway}}
spec: {containers: [{name: apisix, image: example/apisix}]}
status:
  phase: Running
  podIP: 127.0.3.1
  podIPs: [{ip: 127.0.3.1}]
  conditions: [{type: Ready, status: "True"}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ingress, namespace: istio-ingress, labels: {kubernetes.io/service-name: ingress}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [127.0.3.1], conditions: {ready: true}, targetRef: {kind: Pod, name: ingress-0, namespace: istio-ingress}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: istio-ingress}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [shop.example.com]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: [shop.example.com]
  gateways: [istio-ingress/front]
  http:
  - match: [{uri: {prefix: /ratings}}]
    route: [{destination: {host: ratings.default.svc.cluster.local}}]
  - route: [{destination: {host: productpage.default.svc.cluster.local}}]
`

func TestGatewayServesItsHostsOnTheTargetPort(t *testing.T) {
	t.Parallel()
	manifests := harness.CopyManifests(t, demo)
	manifests.Write(t, "ingress.yaml", ingress)
	istiod := harness.StartIstiod(t, binaries.Istiod, manifests.Dir)
	bridge := harness.StartBridge(t, binaries.Meshbridge, "grpc://"+istiod.GRPC, ingressFlags...)
	bridge.WaitReady(t)
	if proxy := istiod.WaitSynced(t); !strings.HasPrefix(proxy.ID, "ingress-0.istio-ingress") {
		t.Errorf("istiod knows the bridge as %q", proxy.ID)
	}
	world := bridge.MustRange(t)
	behind := map[string][]string{}
	for _, key := range routesOf(t, world, "shop.example.com") {
		r := decode[route](t, world.Objects[key].Value)
		if !strings.Contains(string(r.Vars), "8080") {
			t.Errorf("%s is not bound to port 8080: vars %s", key, r.Vars)
		}
		if r.UpstreamID == "" {
			continue
		}
		for _, uri := range append(slices.Clone(r.URIs), r.URI) {
			if uri != "" {
				behind[uri] = decode[upstream](t, world.Objects[harness.Prefix+"upstreams/"+r.UpstreamID].Value).hosts()
			}
		}
	}
	want := map[string][]string{"/ratings*": {"127.0.1.20"}, "/*": {"127.0.1.1"}}
	if diff := cmp.Diff(want, behind); diff != "" {
		t.Errorf("addresses by path (-want +got):\n%s", diff)
	}
}

const shopHTTPRoute = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: istio-ingress}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: ingress.istio-ingress.svc.cluster.local}]
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: default}
spec:
  parentRefs: [{name: front, namespace: istio-ingress}]
  hostnames: [shop.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /ratings}}]
    backendRefs: [{name: ratings, port: 9080}]
`

const gatewayClass = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
`

func TestGatewayAPIRouteFollowsItsBackend(t *testing.T) {
	t.Parallel()
	manifests := harness.CopyManifests(t, demo)
	service, _, _ := strings.Cut(ingress, "---\napiVersion: networking.istio.io")
	manifests.Write(t, "ingress.yaml", service)
	manifests.Write(t, "class.yaml", gatewayClass)
	manifests.Write(t, "shop.yaml", shopHTTPRoute)
	istiod := harness.StartIstiod(t, binaries.Istiod, manifests.Dir)
	bridge := harness.StartBridge(t, binaries.Meshbridge, "grpc://"+istiod.GRPC, ingressFlags...)
	bridge.WaitReady(t)
	world := bridge.MustRange(t)
	served := func(world harness.Snapshot) []string {
		var hosts []string
		for _, key := range routesOf(t, world, "shop.example.com") {
			if id := decode[route](t, world.Objects[key].Value).UpstreamID; id != "" {
				hosts = append(hosts, decode[upstream](t, world.Objects[harness.Prefix+"upstreams/"+id].Value).hosts()...)
			}
		}
		slices.Sort(hosts)
		return slices.Compact(hosts)
	}
	if diff := cmp.Diff([]string{"127.0.1.20"}, served(world)); diff != "" {
		t.Fatalf("addresses behind the routes (-want +got):\n%s", diff)
	}

	watch := bridge.Watch(t, world.Revision+1)
	manifests.Replace(t, "shop.yaml", "name: ratings", "name: details")
	watch.Until(t, "a route to details", func(e harness.Event) bool {
		return strings.Contains(e.Key, "/routes/") && strings.Contains(e.Value, "shop.example.com") && strings.Contains(e.Value, "details")
	})
	if diff := cmp.Diff([]string{"127.0.1.2"}, served(bridge.MustRange(t))); diff != "" {
		t.Errorf("addresses behind the routes after the edit (-want +got):\n%s", diff)
	}
}

// Gateway API also routes inside the mesh: a route whose parent is a Service
// changes what clients of that service get.
func TestGatewayAPIRouteOfAServiceReachesSidecars(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	watch := s.bridge.Watch(t, 0)
	s.manifests.Write(t, "mesh.yaml", `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ratings, namespace: default}
spec:
  parentRefs: [{kind: Service, group: "", name: ratings, port: 9080}]
  rules:
  - backendRefs: [{name: details, port: 9080}]
`)
	watch.Until(t, "a route of ratings to details", func(e harness.Event) bool {
		return strings.Contains(e.Key, "/routes/") && strings.Contains(e.Value, "ratings.default.svc.cluster.local") && strings.Contains(e.Value, "details")
	})
}
