package translate

import (
	"maps"
	"strings"

	"meshbridge/translate/apisix"
)

// APISIX's grpc-web plugin is for gRPC-Web requests alone: it refuses others. They get a route of their
// own. It also opens every response to all origins; response-rewrite, which is made to run after it,
// takes that back.

const (
	typeGRPCWeb = "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"

	codeGRPCWeb Code = "grpc_web_approximate"
)

// afterGRPCWeb is a priority below that of grpc-web, 505.
const afterGRPCWeb = 500

// grpcWeb translates gRPC-Web requests to gRPC, and the responses back.
type grpcWeb struct{}

// orderMeta gives a plugin another place in the order.
type orderMeta struct {
	Priority int `json:"priority"`
}

// grpcWebTwin returns the branch for gRPC-Web requests to destinations that speak gRPC.
func (f *forwarding) grpcWebTwin(b branch, ds []destination) branch {
	b.suffix = joinSuffix("grpc-web", b.suffix)
	b.vars = append(apisix.List(
		apisix.Eq("request_method", "POST"),
		apisix.In("http_content_type", "application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "application/grpc-web-text+proto"),
	), b.vars...)
	b.websocket, b.keepsPath = false, true
	rewrite := &responseRewrite{Meta: &orderMeta{afterGRPCWeb}, Headers: responseHeaderChanges{Set: map[string]string{}}}
	for _, name := range []string{"access-control-allow-origin", "access-control-expose-headers"} {
		rewrite.Headers.Set[name] = apisix.Var("upstream_http_" + strings.ReplaceAll(name, "-", "_"))
	}
	if own, ok := b.plugins[pluginResponseRewrite].(*responseRewrite); ok {
		for _, name := range own.Headers.Remove {
			delete(rewrite.Headers.Set, name)
		}
		maps.Copy(rewrite.Headers.Set, own.Headers.Set)
		rewrite.Headers.Add, rewrite.Headers.Remove = own.Headers.Add, own.Headers.Remove
	}
	return f.to(b.plus(pluginGRPCWeb, grpcWeb{}).plus(pluginResponseRewrite, rewrite), ds, true)
}

// keepingPath returns a uri under which APISIX does not know what the wildcard stands for as ":ext": the
// grpc-web plugin would take that for the path.
func keepingPath(uri string) string {
	if strings.HasSuffix(uri, "/*") {
		return uri + "rest"
	}
	return uri
}
