package translate

import "meshbridge/translate/apisix"

// nginx speaks HTTP/2 to upstreams with its gRPC module only, which is right for gRPC and for nothing
// else. A cluster that speaks HTTP/2, or whatever the client speaks, therefore gets two routes: gRPC
// requests go to a variant of its upstream with scheme grpc, all others in HTTP/1.1.

func (d destination) speaksGRPC() bool {
	return (d.facts.http2 || d.facts.downstream) && !d.facts.originalDestination
}

func speaksGRPC(ds []destination) bool {
	for _, d := range ds {
		if d.speaksGRPC() {
			return true
		}
	}
	return false
}

// grpcTwin returns the branch for gRPC requests. Like in Envoy, gRPC-Web is not gRPC.
func (f *forwarding) grpcTwin(b branch, ds []destination) branch {
	b.suffix = joinSuffix("grpc", b.suffix)
	isGRPC := apisix.Match("http_content_type", `\Aapplication/grpc(?:[+;]|\z)`)
	b.vars = append(apisix.List(isGRPC), b.vars...)
	b.websocket = false
	return f.to(b, ds, true)
}
