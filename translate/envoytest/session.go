package envoytest

import (
	"strings"

	statefulpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	sessioncookiepb "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	sessionheaderpb "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// runSession is the filter of persistent sessions, with what the route says to it. The response names
// the endpoint, unless the request did already; which value does is not evaluated.
func (s *Stream) runSession(f *httpFilter, configs []*anypb.Any) {
	config := f.session
	if override := decode[statefulpb.StatefulSessionPerRoute](last(configs)); override != nil {
		config = override.GetStatefulSession()
		if override.GetDisabled() {
			return
		}
	}
	state := config.GetSessionState().GetTypedConfig()
	if c := decode[sessioncookiepb.CookieBasedSessionState](state); c != nil && cookiePathMatches(c.GetCookie().GetPath(), s.headers.get(":path")) {
		s.session = append(s.session, Header{"set-cookie", c.GetCookie().GetName() + "=" + Unpredictable})
	}
	if h := decode[sessionheaderpb.HeaderBasedSessionState](state); h != nil {
		s.session = append(s.session, Header{strings.ToLower(h.GetName()), Unpredictable})
	}
}

// cookiePathMatches tells whether a cookie's path is one of the request: there is no session elsewhere.
func cookiePathMatches(path, target string) bool {
	rest, ok := strings.CutPrefix(target, path)
	return path == "" || ok && (strings.HasSuffix(path, "/") || rest == "" || strings.ContainsRune("/?#", rune(rest[0])))
}
