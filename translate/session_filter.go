package translate

import (
	"strconv"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statefulpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	sessioncookiepb "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	sessionheaderpb "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	httppb "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"meshbridge/translate/apisix"
)

// A persistent session is a cookie or header with the address of the endpoint that the first request
// went to. In APISIX, it is a key that is hashed: its endpoint stays the same while it is there.

const filterStatefulSession = "envoy.filters.http.stateful_session"

// codePersistentSession is about sessions that are hashed.
const codePersistentSession Code = "persistent_session_approximate"

// isSessionFilter tells whether a filter keeps sessions for the routes that say so, as Istio has it.
func isSessionFilter(config *anypb.Any) bool {
	c := new(statefulpb.StatefulSession)
	return config.MessageIs(c) && config.UnmarshalTo(c) == nil && c.GetSessionState() == nil
}

// session is a persistent session: the hash policy that stands for it and, where it is not kept in a
// cookie, the header of responses that begins one.
type session struct {
	policy *routepb.RouteAction_HashPolicy
	header *sessionCookie
}

// sessionOf returns the persistent session of a route; nil where there is none, or, after reporting,
// none that is kept in a cookie or header.
func sessionOf(rx *routeContext) *session {
	perRoute := new(statefulpb.StatefulSessionPerRoute)
	if !rx.filterConfig(filterStatefulSession, perRoute) || perRoute.GetDisabled() {
		return nil
	}
	field := filterField("", filterStatefulSession)
	reportUnknown(perRoute.GetStatefulSession(), rx.report, field+".stateful_session.")
	state := perRoute.GetStatefulSession().GetSessionState()
	if cookie := decode[sessioncookiepb.CookieBasedSessionState](state.GetTypedConfig()).GetCookie(); isHashKey(cookie.GetName()) {
		rx.report(codePersistentSession, field, "cookie "+strconv.Quote(cookie.GetName()))
		return sessionByCookie(cookie)
	}
	name := strings.ToLower(decode[sessionheaderpb.HeaderBasedSessionState](state.GetTypedConfig()).GetName())
	if !isHashKey(name) {
		rx.report(codeFilterIgnored, field, filterStatefulSession, "sessions by "+strconv.Quote(state.GetName()))
		return nil
	}
	rx.report(codePersistentSession, field, "header "+strconv.Quote(name))
	id := apisix.Var("request_id")
	return &session{
		policy: &routepb.RouteAction_HashPolicy{PolicySpecifier: &routepb.RouteAction_HashPolicy_Header_{
			Header: &routepb.RouteAction_HashPolicy_Header{HeaderName: name},
		}},
		header: &sessionCookie{variable: requestScope().variable(name), line: name + ": " + id, first: hashCombination + ":" + id},
	}
}

func sessionByCookie(cookie *httppb.Cookie) *session {
	policy := &routepb.RouteAction_HashPolicy_Cookie{Name: cookie.GetName(), Path: cookie.GetPath(), Ttl: cookie.GetTtl()}
	if policy.GetTtl() == nil {
		policy.Ttl = durationpb.New(0) // of the browser's session
	}
	return &session{policy: &routepb.RouteAction_HashPolicy{PolicySpecifier: &routepb.RouteAction_HashPolicy_Cookie_{Cookie: policy}}}
}
