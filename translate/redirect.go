package translate

import (
	"strconv"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

func compileRedirect(rx *routeContext, action *routepb.RedirectAction) branch {
	reportUnknown(action, rx.report, "redirect.")
	b := branch{plugins: apisix.Plugins{}}
	if p := rx.responseHeaders(destination{}); p != nil {
		b.plugins[pluginResponseRewrite] = p
	}
	location := redirect{Status: redirectStatus(action.GetResponseCode())}
	origin := rx.redirectOrigin(action)
	if path := action.GetPathRedirect(); path != "" {
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		if strings.ContainsAny(path, `$\`) {
			rx.report(codeRedirectLocation, "redirect.path_redirect", "$ and \\ are sent as %24 and %5C")
		}
		// A query of the new path replaces the request's.
		location.AppendQueryString = !action.GetStripQuery() && !strings.Contains(path, "?")
		location.URI = origin + apisix.EscapeRedirect(path)
		if len(location.URI) < 2 { // the least that the plugin accepts
			location.URI, location.RegexURI = "", []string{wholePath, path}
		}
		return b.plus(pluginRedirect, location)
	}
	if rewrite := rx.redirectRewrite(action); rewrite != nil {
		if action.GetStripQuery() {
			rx.report(codeSettingIgnored, "redirect.strip_query", "strip_query")
		}
		// proxy-rewrite runs first. What it would send to the upstream is the new path and query.
		location.URI = origin + apisix.Var("upstream_uri")
		b = b.plus(pluginProxyRewrite, &proxyRewrite{RegexURI: rewrite})
		return b.plus(pluginRedirect, location)
	}
	if action.GetStripQuery() {
		rx.report(codeRedirectLocation, "redirect.strip_query", "the path is decoded and encoded again, in which an encoded question mark begins a query")
		location.URI, location.EncodeURI = origin+apisix.Var("uri"), true // $uri is decoded
	} else {
		location.URI = origin + apisix.Var("real_request_uri")
	}
	return b.plus(pluginRedirect, location)
}

// redirectRewrite returns expression and replacement where a part of the path is replaced.
func (rx *routeContext) redirectRewrite(action *routepb.RedirectAction) []string {
	switch p := action.GetPathRewriteSpecifier().(type) {
	case *routepb.RedirectAction_PrefixRewrite:
		if p.PrefixRewrite == "" {
			return nil
		}
		return []string{rx.matchedPath(), apisix.EscapeReplacement("/" + strings.TrimPrefix(p.PrefixRewrite, "/"))}
	case *routepb.RedirectAction_RegexRewrite:
		return rx.regexRewrite(p.RegexRewrite, "redirect.regex_rewrite")
	case *routepb.RedirectAction_PathRewrite:
		rx.report(codePathRewrite, "redirect.path_rewrite", "path_rewrite")
	}
	return nil
}

// redirectOrigin is the part of the location before the path, as a template of the redirect plugin;
// empty for a location relative to the request. Envoy keeps the scheme and, unless the port
// changes, the port of the Host header.
func (rx *routeContext) redirectOrigin(action *routepb.RedirectAction) string {
	scheme, host, port := action.GetSchemeRedirect(), action.GetHostRedirect(), action.GetPortRedirect()
	if action.GetHttpsRedirect() {
		scheme = "https"
	}
	if scheme == "" && host == "" && port == 0 {
		return ""
	}
	switch {
	case scheme != "":
	case rx.chain != nil && rx.chain.MeshTLS: // which is terminated in front of APISIX
		scheme = "https"
	default:
		scheme = apisix.Var("scheme")
	}
	switch {
	case host != "":
		host = apisix.EscapeRedirect(host)
	case port != 0:
		host = apisix.Var("host")
	default:
		if action.GetSchemeRedirect() != "" || action.GetHttpsRedirect() {
			rx.report(codeRedirectLocation, "redirect", "a port 80 or 443 in the Host header stays, which Envoy drops where the scheme changes")
		}
		host = apisix.Var("http_host")
	}
	if port != 0 {
		host += ":" + strconv.FormatUint(uint64(port), 10)
	}
	return scheme + "://" + host
}

func redirectStatus(code routepb.RedirectAction_RedirectResponseCode) int {
	switch code {
	case routepb.RedirectAction_FOUND:
		return 302
	case routepb.RedirectAction_SEE_OTHER:
		return 303
	case routepb.RedirectAction_TEMPORARY_REDIRECT:
		return 307
	case routepb.RedirectAction_PERMANENT_REDIRECT:
		return 308
	case routepb.RedirectAction_MOVED_PERMANENTLY:
	}
	return 301
}
