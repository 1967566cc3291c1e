package difftest

import (
	"slices"
	"strconv"
	"strings"

	"meshbridge/translate"
	"meshbridge/translate/envoytest"
)

// A rule says which differences a diagnostic explains.
type rule struct {
	// about says what the diagnostic must be about.
	about func(o *outcome, d translate.Diagnostic) bool
	// explains tells whether it explains the difference.
	explains func(o *outcome, d translate.Diagnostic, diff difference) bool
}

// rules has a rule for each code that may change what happens to a request. Codes that are missing
// explain nothing.
func rules() map[translate.Code]rule {
	skipped := rule{aboutEnvoysRoute, always}       // the route is one that APISIX never takes
	widened := rule{aboutEitherRoute, always}       // the route takes more, or less
	domains := rule{aboutEitherVirtualHost, always} // the virtual host does
	refused := rule{aboutChainOrRoute, isRefused}   // closed where Envoy may be open, or open as was asked for
	path := rule{aboutEitherRoute, isAspect(aspectPath, aspectLocation)}
	return map[translate.Code]rule{
		"regex_unsupported":              skipped,
		"connect_unsupported":            skipped,
		"path_bytes":                     skipped,
		"path_missing":                   skipped,
		"path_policy_unsupported":        skipped,
		"path_relative":                  skipped,
		"filter_state_match_unsupported": skipped,
		"metadata_match_unsupported":     skipped,
		"pseudo_header_unsupported":      widened,
		"string_match_unsupported":       skipped,
		"path_slashes":                   widened,
		"path_decoded":                   {aboutEitherRoute, escapedPath},
		"path_regex_escapes":             {aboutEitherRoute, escapedPath},
		"path_template":                  {aboutEitherRoute, outsideTemplate},
		"query_without_value":            {aboutEitherRoute, bareParameter},

		"domain_port":               domains,
		"domain_taken":              domains,
		"domain_invalid":            domains,
		"vhost_matcher_unsupported": domains,
		"require_tls_external":      domains,

		"redirect_location":         {aboutEitherRoute, isAspect(aspectLocation)},
		"header_left_out":           {aboutEitherRoute, namesHeader},
		"header_may_be_empty":       {aboutEitherRoute, namesHeader},
		"response_header_replaced":  {aboutEitherRoute, namesHeader},
		"host_rewrite_unsupported":  {aboutEitherRoute, isAspect(aspectHost)},
		"path_rewrite_unsupported":  path,
		"path_rewrite_formatted":    {aboutEitherRoute, isAspect(aspectPath)},
		"rewrite_regex_unsupported": path,
		"regex_rewrite_first_match": path,

		"cluster_choice_unsupported":       {aboutEitherRoute, isStatus("503")},
		"action_unsupported":               {aboutEitherRoute, isStatus("500")},
		"direct_response_status_invalid":   {aboutEitherRoute, isStatus("500")},
		"direct_response_body_unsupported": {aboutEitherRoute, isAspect(aspectBody)},
		"fault_not_injected":               {aboutEitherRoute, faultOnly},
		"filter_fault":                     {aboutListener, faultOnly},
		"cors_unsupported":                 {aboutEitherRoute, corsOnly},
		"client_certificate_host":          {aboutListener, isHostOfAnotherCertificate},
		"client_certificate_header":        {aboutListener, isHeader("x-forwarded-client-cert")},
		"setting_ignored":                  {aboutChainOrRoute, ignoredSetting},
		"hash_policy_unsupported":          {aboutEitherRoute, isCookieOfOthers},
		"grpc_web_approximate":             {aboutListener, isGRPCWebHeader},
		"http2_downgraded":                 {aboutCluster, isEscapedAgain},
		"persistent_session_approximate":   {aboutEitherRoute, isStaleSession},

		// Access that cannot be told exactly is refused.
		"authentication_answer":     {aboutEitherRoute, isAnswer403},
		"authentication_header":     {aboutEitherRoute, isAnswer403},
		"authorization_header_name": {aboutChainOrRoute, isAnswer403},
		"authorization_path":        {aboutChainOrRoute, refusesOddPath},
		"authorization_unknown":     {aboutChainOrRoute, isAnswer403},

		"unenforced_rbac":                     refused,
		"unenforced_jwt":                      refused,
		"unenforced_ext_authz":                refused,
		"unenforced_auth_filter":              refused,
		"unenforced_client_certificate":       refused,
		"unenforced_client_certificate_check": refused,
		"unenforced_mutual_tls":               refused,
	}
}

// explain returns the codes that explain all differences of an outcome; ok is false where one is left.
func (w *World) explain(o *outcome, differences []difference) (codes []string, ok bool) {
	table := rules()
	for _, diff := range differences {
		i := slices.IndexFunc(w.diagnostics, func(d translate.Diagnostic) bool {
			r, known := table[d.Code]
			return known && r.about(o, d) && r.explains(o, d, diff)
		})
		if i < 0 {
			return nil, false
		}
		codes = append(codes, string(w.diagnostics[i].Code))
	}
	return codes, true
}

// reports tells whether the translation has a diagnostic that is about all chains.
func (w *World) reports(code string) bool {
	return slices.ContainsFunc(w.diagnostics, func(d translate.Diagnostic) bool { return string(d.Code) == code })
}

// What diagnostics are about.

func aboutListener(_ *outcome, d translate.Diagnostic) bool {
	return strings.HasPrefix(d.Resource, "Listener ") // one listener may stand for several
}

func aboutCluster(o *outcome, d translate.Diagnostic) bool {
	return d.Resource == "Cluster "+o.envoyDecision.Cluster
}

func aboutEnvoysRoute(o *outcome, d translate.Diagnostic) bool {
	e := o.envoyDecision
	if d.Resource != "RouteConfiguration "+o.entrance.chain.RouteConfig || e.RouteIndex < 0 {
		return false
	}
	virtualHost := `virtual_hosts["` + e.VirtualHost + `"]`
	for _, route := range []string{`.routes["` + e.Route + `"]`, ".routes[" + strconv.Itoa(e.RouteIndex) + "]"} {
		if rest, ok := strings.CutPrefix(d.Field, virtualHost+route); ok && (rest == "" || rest[0] == '.') {
			return true
		}
	}
	return d.Field == virtualHost
}

func aboutEitherRoute(o *outcome, d translate.Diagnostic) bool {
	if aboutEnvoysRoute(o, d) {
		return true
	}
	if d.Resource != "RouteConfiguration "+o.entrance.chain.RouteConfig || o.apisixDecision.Route == nil {
		return false
	}
	virtualHost, rest, ok := strings.Cut(strings.TrimPrefix(d.Field, `virtual_hosts["`), `"].routes[`)
	if !ok {
		return false
	}
	name := o.apisixDecision.Route.Name
	if quoted, isName := strings.CutPrefix(rest, `"`); isName {
		route, _, _ := strings.Cut(quoted, `"`)
		return strings.Contains(name+"|", "|"+virtualHost+"|"+route+"|")
	}
	return strings.Contains(name, "|"+virtualHost+"|")
}

func aboutEitherVirtualHost(o *outcome, d translate.Diagnostic) bool {
	if d.Resource != "RouteConfiguration "+o.entrance.chain.RouteConfig {
		return false
	}
	name, _, ok := strings.Cut(strings.TrimPrefix(d.Field, `virtual_hosts["`), `"]`)
	return ok && (name == o.envoyDecision.VirtualHost ||
		o.apisixDecision.Route != nil && strings.Contains(o.apisixDecision.Route.Name, "|"+name+"|"))
}

func aboutChainOrRoute(o *outcome, d translate.Diagnostic) bool {
	return d.Resource == "Listener "+o.entrance.chain.Listener || aboutEitherRoute(o, d)
}

// What differences they explain.

func always(*outcome, translate.Diagnostic, difference) bool { return true }

func isAspect(aspects ...aspect) func(*outcome, translate.Diagnostic, difference) bool {
	return func(_ *outcome, _ translate.Diagnostic, diff difference) bool {
		return slices.Contains(aspects, diff.aspect)
	}
}

func isStatus(status string) func(*outcome, translate.Diagnostic, difference) bool {
	return func(_ *outcome, _ translate.Diagnostic, diff difference) bool {
		return diff.aspect == aspectAnswer && strings.HasPrefix(diff.apisx, status)
	}
}

func isRefused(o *outcome, d translate.Diagnostic, diff difference) bool {
	return strings.Contains(d.Message, "NOT ENFORCED") || diff.aspect == aspectAnswer && o.apisixDecision.Status == 403
}

func isAnswer403(o *outcome, _ translate.Diagnostic, diff difference) bool {
	return diff.aspect == aspectAnswer && o.apisixDecision.Status == 403
}

// isHostOfAnotherCertificate is for requests that APISIX refuses because of their server name.
func isHostOfAnotherCertificate(o *outcome, _ translate.Diagnostic, diff difference) bool {
	d := o.apisixDecision
	return diff.aspect == aspectAnswer && d.AnsweredBy == "tls" && d.Status == 400
}

// refusesOddPath is for paths that Envoy changes before it looks at rules.
func refusesOddPath(o *outcome, d translate.Diagnostic, diff difference) bool {
	return isAnswer403(o, d, diff) && normalTarget(o.envoy.Target) != o.envoy.Target
}

func isHeader(name string) func(*outcome, translate.Diagnostic, difference) bool {
	return func(_ *outcome, _ translate.Diagnostic, diff difference) bool {
		return diff.aspect == aspectRequestHeader && diff.name == name
	}
}

// isEscapedAgain is for rewritten paths of gRPC requests.
func isEscapedAgain(o *outcome, _ translate.Diagnostic, diff difference) bool {
	return diff.aspect == aspectPath && o.apisixDecision.Upstream.Scheme == "grpc" && strings.Contains(diff.apisx, "%25")
}

const methodPOST = "POST"

// isGRPCWebHeader is for the headers that tell gRPC-Web from gRPC. nginx sets two of them itself, and
// only what is a POST to a cluster that speaks gRPC is translated.
func isGRPCWebHeader(o *outcome, _ translate.Diagnostic, diff difference) bool {
	switch {
	case diff.aspect != aspectRequestHeader:
		return false
	case diff.name == "te" || diff.name == "grpc-accept-encoding":
		return true
	}
	return diff.name == "content-type" && (o.envoy.Method != methodPOST || o.apisixDecision.Upstream.Scheme != "grpc")
}

// isCookieOfOthers is for cookies that some destinations of a route need, and for one of several.
func isCookieOfOthers(_ *outcome, d translate.Diagnostic, diff difference) bool {
	return diff.aspect == aspectResponseHeader && diff.name == "set-cookie" &&
		(strings.Contains(d.Message, "cookie") || strings.Contains(d.Message, "combined"))
}

// isStaleSession is for responses to requests whose session names an endpoint that there is not: Envoy
// begins another one.
func isStaleSession(o *outcome, d translate.Diagnostic, diff difference) bool {
	if diff.aspect != aspectResponseHeader {
		return false
	}
	if diff.name == "set-cookie" {
		return strings.Contains(d.Message, "cookie") && headerOf(o.envoy.Headers, "cookie")
	}
	return namesHeader(o, d, diff) && headerOf(o.envoy.Headers, diff.name)
}

func headerOf(headers []envoytest.Header, name string) bool {
	return slices.ContainsFunc(headers, func(h envoytest.Header) bool { return strings.EqualFold(h.Name, name) })
}

// namesHeader is for codes whose message quotes the header.
func namesHeader(_ *outcome, d translate.Diagnostic, diff difference) bool {
	name := diff.name
	if diff.aspect == aspectHost {
		name = "host"
	}
	return name != "" && strings.Contains(strings.ToLower(d.Message), strconv.Quote(name))
}

func escapedPath(o *outcome, _ translate.Diagnostic, _ difference) bool {
	return strings.Contains(o.envoy.Target, "%") || strings.IndexFunc(o.envoy.Target, func(r rune) bool { return r >= 0x7f }) >= 0
}

// outsideTemplate is for paths with escapes, or with characters that are in no segment of a template.
func outsideTemplate(o *outcome, d translate.Diagnostic, diff difference) bool {
	path, _, _ := strings.Cut(o.envoy.Target, "?")
	return escapedPath(o, d, diff) || strings.ContainsAny(path, "\"*<>[]\\^`{|}")
}

// bareParameter is for a parameter without "=", which the message quotes.
func bareParameter(o *outcome, d translate.Diagnostic, _ difference) bool {
	_, query, _ := strings.Cut(o.envoy.Target, "?")
	return slices.ContainsFunc(strings.Split(query, "&"), func(pair string) bool {
		return pair != "" && strings.Contains(d.Message, strconv.Quote(pair))
	})
}

func faultOnly(o *outcome, _ translate.Diagnostic, diff difference) bool {
	return diff.aspect == aspectDelay || diff.aspect == aspectAnswer && o.envoyDecision.Outcome == envoytest.Fault
}

func corsOnly(_ *outcome, _ translate.Diagnostic, diff difference) bool {
	return diff.aspect == aspectResponseHeader && strings.HasPrefix(diff.name, "access-control-") || diff.aspect == aspectAnswer
}

// ignoredSetting knows the settings that matter here; others are about what is not compared.
func ignoredSetting(o *outcome, d translate.Diagnostic, diff difference) bool {
	if strings.HasSuffix(d.Field, "path_with_escaped_slashes_action") {
		target := strings.ToUpper(o.envoy.Target)
		return strings.Contains(target, "%2F") || strings.Contains(target, "%5C")
	}
	return diff.aspect == aspectLocation && strings.HasSuffix(d.Field, "redirect.strip_query")
}
