package translate

import (
	"strconv"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statefulpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	sessioncookiepb "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A persistent session is a cookie with the address of the endpoint that the first request went to. In
// APISIX, the cookie is a key that is hashed: its endpoint stays the same while it is there.

const filterStatefulSession = "envoy.filters.http.stateful_session"

// codePersistentSession is about sessions that are hashed.
const codePersistentSession Code = "persistent_session_approximate"

// isSessionFilter tells whether a filter keeps sessions for the routes that say so, as Istio has it.
func isSessionFilter(config *anypb.Any) bool {
	c := new(statefulpb.StatefulSession)
	return config.MessageIs(c) && config.UnmarshalTo(c) == nil && c.GetSessionState() == nil
}

// sessionPolicy returns the persistent session of a route as the hash policy that stands for it; nil
// where there is none, or, after reporting, none that is kept in a cookie.
func sessionPolicy(rx *routeContext) *routepb.RouteAction_HashPolicy {
	perRoute := new(statefulpb.StatefulSessionPerRoute)
	if !rx.filterConfig(filterStatefulSession, perRoute) || perRoute.GetDisabled() {
		return nil
	}
	field := filterField("", filterStatefulSession)
	reportUnknown(perRoute.GetStatefulSession(), rx.report, field+".stateful_session.")
	state := perRoute.GetStatefulSession().GetSessionState()
	session := decode[sessioncookiepb.CookieBasedSessionState](state.GetTypedConfig())
	if session == nil || !isHashKey(session.GetCookie().GetName()) {
		rx.report(codeFilterIgnored, field, filterStatefulSession, "sessions by "+strconv.Quote(state.GetName()))
		return nil
	}
	cookie := session.GetCookie()
	rx.report(codePersistentSession, field, cookie.GetName())
	policy := &routepb.RouteAction_HashPolicy_Cookie{Name: cookie.GetName(), Path: cookie.GetPath(), Ttl: cookie.GetTtl()}
	if policy.GetTtl() == nil {
		policy.Ttl = durationpb.New(0) // of the browser's session
	}
	return &routepb.RouteAction_HashPolicy{PolicySpecifier: &routepb.RouteAction_HashPolicy_Cookie_{Cookie: policy}}
}
