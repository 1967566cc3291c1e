package core_test

import (
	"testing"

	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
)

// What Istio's tables do not have: wildcards among server names, and TCP routes by address. This file is
// compiled with Istio's, and the calls are generated.

func TestServerNamesOfGateways(t *testing.T) {
	server := func(name, mode, hosts string) string {
		return `port: {number: 443, name: ` + name + `, protocol: HTTPS}
hosts: [` + hosts + `]
tls: {mode: ` + mode + `, credentialName: ` + name + `}`
	}
	mutual := `port: {number: 443, name: mutual, protocol: TLS}
hosts: ["*.mesh.test"]
tls: {mode: ISTIO_MUTUAL}`
	passthrough := `port: {number: 443, name: passthrough, protocol: TLS}
hosts: ["*.passed.example.com"]
tls: {mode: PASSTHROUGH}`
	runGatewayTest(t, simulationTest{config: createGateway("gateway", "istio-system",
		server("exact", "SIMPLE", `"www.example.com", "www.b.example.com"`),
		server("wide", "SIMPLE", `"*.com"`),
		server("middle", "SIMPLE", `"*.example.com"`),
		server("narrow", "SIMPLE", `"*.b.example.com"`),
		mutual, passthrough,
	) + `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: http, namespace: istio-system}
spec:
  hosts: ["*"]
  gateways: [gateway]
  http:
  - route: [{destination: {host: b}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mutual, namespace: istio-system}
spec:
  hosts: ["*.mesh.test"]
  gateways: [gateway]
  tcp:
  - route: [{destination: {host: b}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: passthrough, namespace: istio-system}
spec:
  hosts: ["*.passed.example.com"]
  gateways: [gateway]
  tls:
  - match: [{sniHosts: ["*.deep.passed.example.com"]}]
    route: [{destination: {host: deep}}]
  - match: [{sniHosts: ["*.passed.example.com"]}]
    route: [{destination: {host: passed}}]
`})
}

func TestServerNamesOfSidecars(t *testing.T) {
	proxy := &model.Proxy{Metadata: &model.NodeMetadata{Namespace: "default"}, IPAddresses: []string{"1.1.1.1"}}
	runSimulationTest(t, proxy, xds.FakeOptions{}, simulationTest{config: `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: tls, namespace: default}
spec:
  hosts: ["*.wild.test", "exact.wild.test", "*.deep.wild.test"]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: NONE
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vip, namespace: default}
spec:
  hosts: [vip.test]
  addresses: [10.1.0.0/16, 10.1.2.0/24, 10.1.2.3]
  ports: [{number: 443, name: tls, protocol: TLS}, {number: 9000, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tls, namespace: default}
spec:
  hosts: ["*.wild.test"]
  tls:
  - match: [{sniHosts: ["*.deep.wild.test"], port: 443}]
    route: [{destination: {host: vip.test, port: {number: 9000}}}]
  - match: [{sniHosts: ["*.wild.test"], port: 443}]
    route: [{destination: {host: "*.wild.test"}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp, namespace: default}
spec:
  hosts: [vip.test]
  tcp:
  - match: [{destinationSubnets: [10.1.3.0/24], port: 9000}]
    route: [{destination: {host: vip.test, port: {number: 443}}}]
  - match: [{port: 9000}]
    route: [{destination: {host: vip.test, port: {number: 9000}}}]
`})
}
