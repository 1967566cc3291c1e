package soak

import (
	"fmt"
	"strings"
)

// Names and addresses in the mesh.
func hostName(h int) string             { return fmt.Sprintf("h%d.soak.example", h) }
func backendName(s, b int) string       { return fmt.Sprintf("s%d-b%d", s, b) }
func backendAddress(s, b int) string    { return fmt.Sprintf("127.0.%d.%d", 10+s, 1+b) }
func stamp(h, generation, r int) string { return fmt.Sprintf("h%d/%d/%d", h, generation, r) }

func serviceHost(s int) string {
	if s < kubernetes {
		return fmt.Sprintf("s%d.%s.svc.cluster.local", s, configNamespace)
	}
	return fmt.Sprintf("s%d.soak.external", s)
}

var baseManifest = fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  selector: {istio: edge}
  servers:
  - port: {number: %d, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: inner, namespace: default}
spec:
  selector: {istio: inner}
  servers:
  - port: {number: %d, name: http, protocol: HTTP}
    hosts: ["*"]
%s`, edgePort, innerPort, tcpServers())

func tcpServers() string {
	var b strings.Builder
	for p := range tcpPorts {
		fmt.Fprintf(&b, "  - port: {number: %d, name: tcp-%d, protocol: TCP}\n    hosts: [\"*\"]\n", firstTCPPort+p, p)
	}
	return b.String()
}

// siteManifest stamps requests with the host, the generation and the rule.
func siteManifest(h int, s site) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: h%d, namespace: default}
spec:
  hosts: [%s]
  gateways: [edge, inner]
  http:
`, h, hostName(h))
	for i, r := range s.rules {
		fmt.Fprintf(&b, "  - name: r%d\n    headers: {request: {set: {x-soak: %q}}}\n", i, stamp(h, s.generation, i))
		switch {
		case r.visitor:
			fmt.Fprintf(&b, "    match: [{headers: {x-visitor: {exact: %s}}}]\n", visitor)
		case r.prefix != "":
			fmt.Fprintf(&b, "    match: [{uri: {prefix: %s}}]\n", r.prefix)
		}
		b.WriteString("    route:\n")
		for j, to := range r.to {
			fmt.Fprintf(&b, "    - {destination: {host: %s, port: {number: %d}}, weight: %d}\n", serviceHost(to), servicePort, r.weights[j]*maxWeight/sum(r.weights))
		}
	}
	return b.String()
}

func sum(numbers []int) (n int) {
	for _, v := range numbers {
		n += v
	}
	return n
}

func tcpManifest(p, to int) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp-%[1]d, namespace: default}
spec:
  hosts: ["*"]
  gateways: [inner]
  tcp:
  - match: [{port: %[2]d}]
    route: [{destination: {host: %[3]s, port: {number: %[4]d}}}]
`, p, firstTCPPort+p, serviceHost(to), serviceTCPPort)
}

func serviceManifest(s int, p pool) string {
	policy := fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s%d, namespace: default}
spec:
  host: %s
  trafficPolicy: {connectionPool: {http: {idleTimeout: %ds}}, loadBalancer: {simple: %s}}
---`, s, serviceHost(s), 60+p.policy, []string{"ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"}[p.policy%3])
	if s < kubernetes {
		return policy + kubernetesService(s, p)
	}
	return policy + serviceEntry(s, p)
}

// kubernetesService has pods that speak mutual TLS, where who connects can.
func kubernetesService(s int, p pool) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
apiVersion: v1
kind: Service
metadata: {name: s%[1]d, namespace: default, labels: {app: s%[1]d}}
spec:
  clusterIP: 10.96.0.%[2]d
  clusterIPs: [10.96.0.%[2]d]
  selector: {app: s%[1]d}
  ports:
  - {name: http, port: %[3]d, targetPort: %[4]d, protocol: TCP}
  - {name: tcp, port: %[5]d, targetPort: %[6]d, protocol: TCP}
---`, s, 10+s, servicePort, httpPort, serviceTCPPort, tcpPort)
	for member := range backends {
		fmt.Fprintf(&b, `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: default, labels: {app: s%[2]d, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: s%[2]d, containers: [{name: app, image: example/app}]}
status:
  phase: Running
  podIP: %[3]s
  podIPs: [{ip: %[3]s}]
  conditions: [{type: Ready, status: "True"}]
---`, backendName(s, member), s, backendAddress(s, member))
	}
	fmt.Fprintf(&b, `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s%[1]d, namespace: default, labels: {kubernetes.io/service-name: s%[1]d}}
addressType: IPv4
ports:
- {name: http, port: %[2]d, protocol: TCP}
- {name: tcp, port: %[3]d, protocol: TCP}
endpoints:
`, s, httpPort, tcpPort)
	for _, member := range p.members {
		fmt.Fprintf(&b, "- {addresses: [%s], conditions: {ready: true}, targetRef: {kind: Pod, name: %s, namespace: default}}\n",
			backendAddress(s, member), backendName(s, member))
	}
	return b.String()
}

func serviceEntry(s int, p pool) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s%d, namespace: default}
spec:
  hosts: [%s]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports:
  - {number: %d, name: http, protocol: HTTP, targetPort: %d}
  - {number: %d, name: tcp, protocol: TCP, targetPort: %d}
  endpoints:
`, s, serviceHost(s), servicePort, httpPort, serviceTCPPort, tcpPort)
	for _, member := range p.members {
		fmt.Fprintf(&b, "  - {address: %s}\n", backendAddress(s, member))
	}
	return b.String()
}
