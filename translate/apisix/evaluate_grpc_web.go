package apisix

import (
	"encoding/json"
	"slices"
	"strings"
)

// grpcWebPriority is where grpc-web runs, and response-rewrite before it unless told otherwise.
const grpcWebPriority = 505

// grpcWeb makes a gRPC request of one of gRPC-Web, which must be a POST. The body is not modelled.
func (p *pluginRun) grpcWeb(json.RawMessage) {
	const name = "grpc-web"
	switch {
	case p.vars.method == "OPTIONS":
		p.d.answer(name, 204)
	case p.vars.method != "POST":
		p.d.answer(name, 405)
	case !slices.Contains([]string{
		"application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "application/grpc-web-text+proto",
	}, p.vars.headers["content_type"]):
		p.d.answer(name, 400)
	default:
		headerLines(p.d.Headers).set("content-type", "application/grpc")
		if i := slices.IndexFunc(p.d.Candidates, func(c Candidate) bool { return c.Matched }); i >= 0 && strings.HasSuffix(p.d.Candidates[i].Path, "/*") {
			p.note(name, "what the wildcard of the route stands for becomes the path")
		}
	}
}

// grpcWebResponse opens the response to all origins.
func (p *pluginRun) grpcWebResponse() {
	if _, ok := p.active("grpc-web"); !ok {
		return
	}
	response := headerLines(p.d.Response)
	response.set("access-control-allow-origin", "*")
	response.set("access-control-expose-headers", "grpc-message,grpc-status")
	if p.d.Status == 0 {
		response.set("content-type", p.vars.headers["content_type"])
	}
}

// runsBeforeGRPCWeb tells whether a plugin's place in the order, which its configuration may change,
// is in front of grpc-web.
func runsBeforeGRPCWeb(config json.RawMessage) bool {
	var c struct {
		Meta struct {
			Priority *int `json:"priority"`
		} `json:"_meta"`
	}
	return json.Unmarshal(config, &c) != nil || c.Meta.Priority == nil || *c.Meta.Priority > grpcWebPriority
}
