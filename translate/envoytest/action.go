package envoytest

import (
	"strconv"
	"strings"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// runRouter is the router filter: it does what the route says.
func (s *Stream) runRouter() {
	d := s.decision
	switch {
	case s.route == nil:
		d.answer(NotFound, 404)
		return
	case s.route.route == nil:
		d.answer(Redirect, 301)
		d.Location = "https://" + s.headers.get(":authority") + s.headers.get(":path")
		s.encode(nil)
		return
	}
	switch action := s.route.route.GetAction().(type) {
	case *routepb.Route_Route:
		s.forward(action.Route)
	case *routepb.Route_Redirect:
		s.redirect(action.Redirect)
	case *routepb.Route_DirectResponse:
		d.answer(Direct, int(action.DirectResponse.GetStatus()))
		body := action.DirectResponse.GetBody()
		d.Body = body.GetInlineString() + string(body.GetInlineBytes())
		if body.GetFilename() != "" || body.GetEnvironmentVariable() != "" || action.DirectResponse.GetBodyFormat() != nil {
			d.Body = Unpredictable
		}
		if d.Status == 201 || d.Status >= 300 && d.Status < 400 {
			d.Location = s.redirectURI(&routepb.RedirectAction{}) // the request's own
		}
		s.encode(nil)
	default:
		d.note("the route action is not evaluated")
		d.answer(Unknown, 0)
	}
}

// clusterName is where the route forwards to.
func (s *Stream) clusterName() string {
	action := s.route.route.GetRoute()
	switch c := action.GetClusterSpecifier().(type) {
	case *routepb.RouteAction_Cluster:
		return c.Cluster
	case *routepb.RouteAction_ClusterHeader:
		return s.headers.get(strings.ToLower(c.ClusterHeader))
	case *routepb.RouteAction_WeightedClusters:
		if s.route.weighted != nil {
			return s.weightedName(s.route.weighted)
		}
	}
	return ""
}

func (s *Stream) forward(action *routepb.RouteAction) {
	d := s.decision
	if action.GetClusterSpecifierPlugin() != "" || action.GetInlineClusterSpecifierPlugin() != nil {
		d.note("a plugin chooses the cluster")
		d.answer(Unknown, 0)
		return
	}
	d.Cluster = s.clusterName()
	hashes, exists := s.evaluator.clusters[d.Cluster]
	if !exists {
		d.answer(NoCluster, notFoundStatus(action))
		return
	}
	var cookies []Header
	if hashes {
		cookies = s.affinityCookies(action.GetHashPolicy())
	}
	d.Outcome = Forward
	for _, m := range s.requestMutations() {
		s.mutate(s.headers, m, nil)
	}
	if s.route.vhost.GetIncludeRequestAttemptCount() {
		s.headers.set("x-envoy-attempt-count", "1")
	}
	s.rewriteHost(action)
	s.rewritePath(action)
	d.Host, d.Path = s.headers.get(":authority"), s.headers.get(":path")
	d.Headers = s.headers.plain()
	s.encode(s.request.Response, cookies...)
	s.describe(action)
}

func notFoundStatus(action *routepb.RouteAction) int {
	switch action.GetClusterNotFoundResponseCode() {
	case routepb.RouteAction_NOT_FOUND:
		return 404
	case routepb.RouteAction_INTERNAL_SERVER_ERROR:
		return 500
	case routepb.RouteAction_SERVICE_UNAVAILABLE:
	}
	return 503
}

// affinityCookies are those that Envoy makes for clients without one, for policies that have a time to
// live. A terminal policy that has a value ends the list.
func (s *Stream) affinityCookies(policies []*routepb.RouteAction_HashPolicy) []Header {
	var out []Header
	for _, h := range policies {
		hashed := false
		switch p := h.GetPolicySpecifier().(type) {
		case *routepb.RouteAction_HashPolicy_Header_:
			hashed = s.headers.has(strings.ToLower(p.Header.GetHeaderName()))
		case *routepb.RouteAction_HashPolicy_Cookie_:
			value, _ := cookie(s.headers, p.Cookie.GetName())
			hashed = value != "" || p.Cookie.GetTtl() != nil
			if value == "" && p.Cookie.GetTtl() != nil {
				out = append(out, Header{"set-cookie", p.Cookie.GetName() + "=" + Unpredictable})
			}
		case *routepb.RouteAction_HashPolicy_ConnectionProperties_:
			hashed = p.ConnectionProperties.GetSourceIp()
		case *routepb.RouteAction_HashPolicy_QueryParameter_:
			_, hashed = queryParameter(s.headers.get(":path"), p.QueryParameter.GetName())
		}
		if hashed && h.GetTerminal() {
			break
		}
	}
	return out
}

// encode makes the headers of the response, with those that the router adds itself.
func (s *Stream) encode(upstream []Header, own ...Header) {
	response := newHeaderMap(upstream)
	for _, h := range own {
		response.add(h.Name, h.Value)
	}
	if s.route.route != nil {
		for _, m := range s.responseMutations() {
			s.mutate(response, m, response)
		}
	}
	if s.decision.Outcome == Forward {
		s.encodeForwarded(response)
	}
	s.encodeCORS(response)
	s.decision.Response = response.plain()
}

// encodeForwarded is what filters make of the response of an endpoint.
func (s *Stream) encodeForwarded(response *headerMap) {
	for _, h := range s.session {
		if h.Name == "set-cookie" {
			response.add(h.Name, h.Value)
		} else {
			response.set(h.Name, h.Value)
		}
	}
	if s.grpcWeb {
		response.set("content-type", Unpredictable) // depends on what the endpoint answers
	}
}

// describe adds what the route says beyond where the request goes.
func (s *Stream) describe(action *routepb.RouteAction) {
	d := s.decision
	d.Timeout = 15 * time.Second
	if action.GetTimeout() != nil {
		d.Timeout = positive(action.GetTimeout())
	}
	d.IdleTimeout = positive(s.manager.hcm.GetStreamIdleTimeout())
	if s.manager.hcm.GetStreamIdleTimeout() == nil {
		d.IdleTimeout = 5 * time.Minute
	}
	if action.GetIdleTimeout() != nil {
		d.IdleTimeout = positive(action.GetIdleTimeout())
	}
	policy := action.GetRetryPolicy()
	if policy == nil {
		policy = s.route.vhost.GetRetryPolicy()
	}
	if policy != nil {
		d.Retry = Retry{On: policy.GetRetryOn(), Count: 1, PerTryTimeout: positive(policy.GetPerTryTimeout())}
		if policy.GetNumRetries() != nil {
			d.Retry.Count = policy.GetNumRetries().GetValue()
		}
	}
	mirrors := action.GetRequestMirrorPolicies()
	if len(mirrors) == 0 {
		mirrors = s.route.vhost.GetRequestMirrorPolicies()
	}
	if len(mirrors) == 0 {
		mirrors = s.config.config.GetRequestMirrorPolicies()
	}
	for _, m := range mirrors {
		d.Mirrors = append(d.Mirrors, m.GetCluster())
	}
	for _, h := range action.GetHashPolicy() {
		d.Hash = append(d.Hash, describeHash(h))
	}
}

func describeHash(h *routepb.RouteAction_HashPolicy) string {
	text := "unknown"
	switch p := h.GetPolicySpecifier().(type) {
	case *routepb.RouteAction_HashPolicy_Header_:
		text = "header " + p.Header.GetHeaderName()
	case *routepb.RouteAction_HashPolicy_Cookie_:
		text = "cookie " + p.Cookie.GetName()
	case *routepb.RouteAction_HashPolicy_ConnectionProperties_:
		text = "source address"
	case *routepb.RouteAction_HashPolicy_QueryParameter_:
		text = "query parameter " + p.QueryParameter.GetName()
	case *routepb.RouteAction_HashPolicy_FilterState_:
		text = "filter state " + p.FilterState.GetKey()
	}
	if h.GetTerminal() {
		text += " terminal"
	}
	return text
}

func positive(d *durationpb.Duration) time.Duration { return max(d.AsDuration(), 0) }

// redirect answers with another place.
func (s *Stream) redirect(r *routepb.RedirectAction) {
	status := map[routepb.RedirectAction_RedirectResponseCode]int{
		routepb.RedirectAction_MOVED_PERMANENTLY:  301,
		routepb.RedirectAction_FOUND:              302,
		routepb.RedirectAction_SEE_OTHER:          303,
		routepb.RedirectAction_TEMPORARY_REDIRECT: 307,
		routepb.RedirectAction_PERMANENT_REDIRECT: 308,
	}[r.GetResponseCode()]
	s.decision.answer(Redirect, status)
	target := s.headers.get(":path")
	switch p := r.GetPathRewriteSpecifier().(type) {
	case *routepb.RedirectAction_PrefixRewrite:
		if p.PrefixRewrite != "" {
			s.headers.set(":path", s.replacePrefix(target, p.PrefixRewrite))
		}
	case *routepb.RedirectAction_RegexRewrite:
		// A rewrite to nothing is none.
		if path := s.evaluator.replaceAll(p.RegexRewrite, cutQuery(target)); path != "" {
			s.headers.set(":path", path+target[len(cutQuery(target)):])
		}
	}
	s.decision.Location = s.redirectURI(r)
	s.encode(nil)
}

// redirectURI is the Location, for the path that the redirect may have rewritten.
func (s *Stream) redirectURI(r *routepb.RedirectAction) string {
	scheme := s.headers.get(":scheme")
	switch {
	case r.GetSchemeRedirect() != "":
		scheme = r.GetSchemeRedirect()
	case r.GetHttpsRedirect():
		scheme = "https"
	}
	port := ""
	if r.GetPortRedirect() != 0 {
		port = ":" + strconv.FormatUint(uint64(r.GetPortRedirect()), 10)
	}
	host := r.GetHostRedirect()
	if host == "" {
		host = s.hostForScheme(scheme, port != "")
	}
	target := s.headers.get(":path")
	path, query, hasQuery := strings.Cut(target, "?")
	switch replacement := r.GetPathRedirect(); {
	case strings.Contains(replacement, "?"):
		target = replacement // with a query of its own
	case replacement != "":
		target = replacement
		if hasQuery && !r.GetStripQuery() {
			target += "?" + query
		}
	case r.GetStripQuery():
		target = path
	}
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	return scheme + "://" + host + port + target
}

// hostForScheme is the request's Host without a port that another one replaces, or that is the
// default of a scheme that is left.
func (s *Stream) hostForScheme(scheme string, replaced bool) string {
	host := s.headers.get(":authority")
	i := strings.LastIndexByte(host, ':')
	if strings.HasPrefix(host, "[") {
		if i = strings.LastIndex(host, "]:"); i >= 0 {
			i++
		}
	}
	if i < 0 {
		return host
	}
	was, port := s.headers.get("x-forwarded-proto"), host[i:]
	if replaced || scheme != was && (was == "https" && port == ":443" || was == "http" && port == ":80") {
		return host[:i]
	}
	return host
}

// Path returns the path of the request as filters see it, without query and fragment.
func (s *Stream) Path() string { return cutQuery(s.headers.get(":path")) }
