package translate

import (
	"unicode/utf8"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// compileDirectResponse answers with the fault-injection plugin: it is the one that answers with
// any status and body.
func compileDirectResponse(rx *routeContext, action *routepb.DirectResponseAction) branch {
	reportUnknown(action, rx.report, "direct_response.")
	abort := &faultAbort{HTTPStatus: int(action.GetStatus())}
	if abort.HTTPStatus < 200 || abort.HTTPStatus > 599 {
		rx.report(codeResponseStatus, "direct_response.status", abort.HTTPStatus)
		abort.HTTPStatus = 500
	}
	if action.GetBodyFormat() != nil {
		rx.report(codeResponseBody, "direct_response.body_format", "it has a format")
	}
	body, why := inlineText(action.GetBody())
	if why != "" {
		rx.report(codeResponseBody, "direct_response.body", why)
	}
	if body != "" {
		abort.Body = apisix.EscapeTemplate(body)
		abort.Headers = map[string]string{"content-type": "text/plain"}
	}
	b := branch{plugins: apisix.Plugins{pluginFaultInjection: faultInjection{Abort: abort}}}
	if p := rx.responseHeaders(destination{}); p != nil {
		b.plugins[pluginResponseRewrite] = p
	}
	return b
}

// inlineText returns text that is part of the configuration; why says why there is none.
func inlineText(source *corepb.DataSource) (text, why string) {
	switch s := source.GetSpecifier().(type) {
	case *corepb.DataSource_InlineString:
		return s.InlineString, ""
	case *corepb.DataSource_InlineBytes:
		if !utf8.Valid(s.InlineBytes) {
			return "", "it is not text"
		}
		return string(s.InlineBytes), ""
	case *corepb.DataSource_Filename:
		return "", "it is in the file " + s.Filename
	case *corepb.DataSource_EnvironmentVariable:
		return "", "it is in the environment variable " + s.EnvironmentVariable
	}
	return "", ""
}
