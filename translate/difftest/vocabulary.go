package difftest

import (
	"slices"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	grpcwebpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	sessionheaderpb "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	httppb "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/translate"
	"meshbridge/xds"
)

// vocabulary is what a configuration mentions that requests may have.
type vocabulary struct {
	hosts, paths, methods []string
	headers, queries      []words
	cookies               []words
	// changed are headers that the configuration changes.
	changed []string
	// config is the route configuration that was read, if there was one.
	config *routepb.RouteConfiguration
}

// words are the values that matter of a header or parameter. Expressions are sampled from regexes.
type words struct {
	name    string
	values  []string
	regexes []string
}

// vocabularyOf reads the routes of a chain, and the filters in front of them.
func vocabularyOf(snap *xds.Snapshot, c *translate.Chain) *vocabulary {
	v := &vocabulary{}
	if r := snap.Get(xds.Key{Type: xds.ListenerType, Name: c.Listener}); r != nil {
		if l, err := xds.Decode[*listenerpb.Listener](r); err == nil {
			for _, fc := range append(l.GetFilterChains(), l.GetDefaultFilterChain()) {
				if fc.GetName() == c.FilterChain {
					v.walk(fc.ProtoReflect())
				}
			}
		}
	}
	if r := snap.Get(xds.Key{Type: xds.RouteType, Name: c.RouteConfig}); r != nil && !c.Inline {
		if config, err := xds.Decode[*routepb.RouteConfiguration](r); err == nil {
			v.walk(config.ProtoReflect())
		}
	}
	v.complete()
	return v
}

// complete is called when all has been collected.
func (v *vocabulary) complete() {
	for _, list := range []*[]string{&v.hosts, &v.paths, &v.methods, &v.changed} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	for _, list := range []*[]words{&v.headers, &v.queries, &v.cookies} {
		*list = merge(*list)
	}
}

// merge makes one entry of those with the same name.
func merge(list []words) []words {
	slices.SortStableFunc(list, func(a, b words) int { return strings.Compare(a.name, b.name) })
	var out []words
	for _, w := range list {
		if n := len(out); n > 0 && out[n-1].name == w.name {
			out[n-1].values = append(out[n-1].values, w.values...)
			out[n-1].regexes = append(out[n-1].regexes, w.regexes...)
			continue
		}
		out = append(out, w)
	}
	return out
}

// walk collects from a message and those in it.
func (v *vocabulary) walk(m protoreflect.Message) {
	if !m.IsValid() {
		return
	}
	switch m := m.Interface().(type) {
	case *anypb.Any:
		if inner, err := m.UnmarshalNew(); err == nil {
			v.walk(inner.ProtoReflect())
		}
		return
	case *routepb.RouteConfiguration:
		v.config = m
	case *routepb.VirtualHost:
		v.hosts = append(v.hosts, m.GetDomains()...)
	case *routepb.RouteMatch:
		v.addPath(m)
	case *matcherpb.PathMatcher:
		w := wordsOf("", m.GetPath())
		v.paths = append(v.paths, w.values...)
		for _, re := range w.regexes {
			v.paths = append(v.paths, samples(re)...)
		}
	case *routepb.HeaderMatcher:
		v.addHeader(m)
	case *routepb.QueryParameterMatcher:
		v.queries = append(v.queries, wordsOf(m.GetName(), m.GetStringMatch()))
	case *routepb.CookieMatcher:
		v.cookies = append(v.cookies, wordsOf(m.GetName(), m.GetStringMatch()))
	case *corspb.CorsPolicy:
		for _, origin := range m.GetAllowOriginStringMatch() {
			v.headers = append(v.headers, wordsOf("origin", origin))
		}
		v.headers = append(v.headers, words{name: "access-control-request-method", values: []string{"GET", "PUT", ""}})
		v.methods = append(v.methods, "OPTIONS", "OPTIONS")
	case *httppb.Cookie:
		v.cookies = append(v.cookies, words{name: m.GetName(), values: []string{"x", "10.1.2.3:8080"}})
	case *routepb.RouteAction_HashPolicy_Cookie:
		v.cookies = append(v.cookies, words{name: m.GetName(), values: []string{"x", ""}})
	case *routepb.RouteAction_HashPolicy_Header:
		v.headers = append(v.headers, words{name: strings.ToLower(m.GetHeaderName()), values: []string{"x"}})
	case *sessionheaderpb.HeaderBasedSessionState:
		v.headers = append(v.headers, words{name: strings.ToLower(m.GetName()), values: []string{"x", "MTAuMS4yLjM6ODA4MA=="}})
	case *grpcwebpb.GrpcWeb:
		v.headers = append(v.headers, words{name: "content-type", values: []string{"application/grpc-web", "application/grpc-web-text+proto", "application/grpc-web;x"}})
		v.methods = append(v.methods, "POST")
	case *corepb.HeaderValueOption:
		v.changed = append(v.changed, strings.ToLower(m.GetHeader().GetKey()))
	case *http_connection_managerpb.HttpConnectionManager:
		// What a client could forge.
		v.changed = append(v.changed, "x-forwarded-client-cert")
	}
	m.Range(func(f protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case f.Name() == "request_headers_to_remove" || f.Name() == "response_headers_to_remove":
			for i := range value.List().Len() {
				v.changed = append(v.changed, strings.ToLower(value.List().Get(i).String()))
			}
		case f.IsMap() && f.MapValue().Message() != nil:
			value.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
				v.walk(value.Message())
				return true
			})
		case f.IsMap():
		case f.IsList() && f.Message() != nil:
			for i := range value.List().Len() {
				v.walk(value.List().Get(i).Message())
			}
		case f.Message() != nil && !f.IsList():
			v.walk(value.Message())
		}
		return true
	})
}

func (v *vocabulary) addPath(m *routepb.RouteMatch) {
	switch p := m.GetPathSpecifier().(type) {
	case *routepb.RouteMatch_Prefix:
		v.paths = append(v.paths, p.Prefix, p.Prefix+"x", strings.TrimSuffix(p.Prefix, "/")+"/x")
	case *routepb.RouteMatch_Path:
		v.paths = append(v.paths, p.Path, p.Path)
	case *routepb.RouteMatch_PathSeparatedPrefix:
		v.paths = append(v.paths, p.PathSeparatedPrefix, p.PathSeparatedPrefix+"/", p.PathSeparatedPrefix+"/x", p.PathSeparatedPrefix+"x")
	case *routepb.RouteMatch_SafeRegex:
		v.paths = append(v.paths, samples(p.SafeRegex.GetRegex())...)
	}
}

func (v *vocabulary) addHeader(m *routepb.HeaderMatcher) {
	w := words{name: strings.ToLower(m.GetName())}
	if r := m.GetRangeMatch(); r != nil {
		w.values = []string{decimal(r.GetStart()), decimal(r.GetStart() - 1), decimal(r.GetEnd()), "x", decimal(r.GetStart()) + "x", " " + decimal(r.GetStart())}
	} else {
		w = wordsOf(w.name, stringMatcher(m))
	}
	switch w.name {
	case ":method":
		v.methods = append(v.methods, w.values...)
	case ":authority", "host":
		v.hosts = append(v.hosts, w.values...)
	case ":path":
		v.paths = append(v.paths, w.values...)
	case ":scheme":
	default:
		v.headers = append(v.headers, w)
	}
}

// stringMatcher returns a header's matcher, also one in a deprecated form.
//
//nolint:staticcheck // configuration for older Envoys has those.
func stringMatcher(m *routepb.HeaderMatcher) *matcherpb.StringMatcher {
	out := proto.CloneOf(m.GetStringMatch())
	if out == nil {
		out = &matcherpb.StringMatcher{}
	}
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case *routepb.HeaderMatcher_ExactMatch:
		out.MatchPattern = &matcherpb.StringMatcher_Exact{Exact: s.ExactMatch}
	case *routepb.HeaderMatcher_PrefixMatch:
		out.MatchPattern = &matcherpb.StringMatcher_Prefix{Prefix: s.PrefixMatch}
	case *routepb.HeaderMatcher_SuffixMatch:
		out.MatchPattern = &matcherpb.StringMatcher_Suffix{Suffix: s.SuffixMatch}
	case *routepb.HeaderMatcher_ContainsMatch:
		out.MatchPattern = &matcherpb.StringMatcher_Contains{Contains: s.ContainsMatch}
	case *routepb.HeaderMatcher_SafeRegexMatch:
		out.MatchPattern = &matcherpb.StringMatcher_SafeRegex{SafeRegex: s.SafeRegexMatch}
	}
	return out
}

// wordsOf returns values at and around what a matcher accepts.
func wordsOf(name string, m *matcherpb.StringMatcher) words {
	w := words{name: name}
	var literal string
	switch p := m.GetMatchPattern().(type) {
	case *matcherpb.StringMatcher_Exact:
		literal = p.Exact
	case *matcherpb.StringMatcher_Prefix:
		literal = p.Prefix
	case *matcherpb.StringMatcher_Suffix:
		literal = p.Suffix
	case *matcherpb.StringMatcher_Contains:
		literal = p.Contains
	case *matcherpb.StringMatcher_SafeRegex:
		w.regexes = []string{p.SafeRegex.GetRegex()}
		w.values = samples(p.SafeRegex.GetRegex())
		return w
	default:
		w.values = []string{"x", "", "y"}
		return w
	}
	w.values = []string{literal, literal, literal, literal + "x", "x" + literal, strings.ToUpper(literal), ""}
	if literal != "" {
		w.values = append(w.values, literal[:len(literal)-1])
	}
	return w
}
