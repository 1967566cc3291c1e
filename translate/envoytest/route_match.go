package envoytest

import (
	"slices"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	uri_templatepb "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// matches tells whether a route takes the request.
func (s *Stream) matches(m *routepb.RouteMatch) bool {
	e := s.evaluator
	if f := m.GetRuntimeFraction(); f != nil && s.request.Draws.Match >= share(f.GetDefaultValue()) {
		return false
	}
	if m.GetGrpc() != nil && !isGRPC(s.headers) {
		return false
	}
	for _, h := range m.GetHeaders() {
		if !e.matchHeader(h, s.headers) {
			return false
		}
	}
	for _, q := range m.GetQueryParameters() {
		if !e.matchQuery(q, s.headers.get(":path")) {
			return false
		}
	}
	for _, c := range m.GetCookies() {
		if !e.matchCookie(c, s.headers) {
			return false
		}
	}
	if !s.matchTLS(m.GetTlsContext()) {
		return false
	}
	for _, metadata := range m.GetDynamicMetadata() {
		if !s.MatchMetadata(metadata) {
			return false
		}
	}
	if len(m.GetFilterState()) > 0 {
		return false // there is no filter that sets any
	}
	return s.matchPath(m)
}

func (s *Stream) matchPath(m *routepb.RouteMatch) bool {
	// Prefix, exact and regular expression matchers leave query and fragment out.
	path := cutQuery(s.headers.get(":path"))
	if s.config.config.GetIgnorePathParametersInPathMatching() {
		path, _, _ = strings.Cut(path, ";")
	}
	folded := func(p string) string {
		if m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue() {
			return asciiLower(p)
		}
		return p
	}
	switch p := m.GetPathSpecifier().(type) {
	case *routepb.RouteMatch_Prefix:
		return strings.HasPrefix(folded(path), folded(p.Prefix))
	case *routepb.RouteMatch_Path:
		return folded(path) == folded(p.Path)
	case *routepb.RouteMatch_PathSeparatedPrefix:
		rest, ok := strings.CutPrefix(folded(path), folded(p.PathSeparatedPrefix))
		return ok && (rest == "" || rest[0] == '/')
	case *routepb.RouteMatch_SafeRegex:
		return s.evaluator.fullMatch(p.SafeRegex.GetRegex(), path)
	case *routepb.RouteMatch_ConnectMatcher_:
		return s.headers.get(":method") == "CONNECT"
	case *routepb.RouteMatch_PathMatchPolicy:
		template := new(uri_templatepb.UriTemplateMatchConfig)
		if p.PathMatchPolicy.GetTypedConfig().UnmarshalTo(template) != nil {
			return false
		}
		return s.evaluator.MatchURITemplate(template.GetPathTemplate(), path)
	}
	return false
}

// share is a fraction as a number from 0 to 1.
func share(f *typepb.FractionalPercent) float64 {
	denominator := 100.0
	switch f.GetDenominator() {
	case typepb.FractionalPercent_TEN_THOUSAND:
		denominator = 10_000
	case typepb.FractionalPercent_MILLION:
		denominator = 1_000_000
	case typepb.FractionalPercent_HUNDRED:
	}
	return float64(f.GetNumerator()) / denominator
}

// isGRPC tells gRPC requests by their content type, gRPC-Web excluded.
func isGRPC(headers *headerMap) bool {
	rest, ok := strings.CutPrefix(headers.get("content-type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+')
}

// matchQuery looks at the first value of a parameter, undecoded.
func (e *Evaluator) matchQuery(q *routepb.QueryParameterMatcher, target string) bool {
	value, present := queryParameter(target, q.GetName())
	switch m := q.GetQueryParameterMatchSpecifier().(type) {
	case *routepb.QueryParameterMatcher_StringMatch:
		return present && e.matchString(m.StringMatch, value)
	case *routepb.QueryParameterMatcher_PresentMatch:
		return present == m.PresentMatch
	}
	return present
}

func queryParameter(target, name string) (value string, present bool) {
	_, query, _ := strings.Cut(target, "?")
	query, _, _ = strings.Cut(query, "#")
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if key == name && pair != "" {
			return value, true
		}
	}
	return "", false
}

// matchCookie looks at the first cookie of the name. One that is missing matches inverted only.
func (e *Evaluator) matchCookie(c *routepb.CookieMatcher, headers *headerMap) bool {
	value, present := cookie(headers, c.GetName())
	return (present && e.matchString(c.GetStringMatch(), value)) != c.GetInvertMatch()
}

func cookie(headers *headerMap, name string) (value string, present bool) {
	for _, line := range headers.values("cookie") {
		for pair := range strings.SplitSeq(line, ";") {
			key, value, ok := strings.Cut(strings.TrimLeft(pair, " \t"), "=")
			if ok && key == name {
				if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
					value = value[1 : len(value)-1]
				}
				return value, true
			}
		}
	}
	return "", false
}

func (s *Stream) matchTLS(t *routepb.RouteMatch_TlsContextMatchOptions) bool {
	certificate := s.request.Connection.Certificate
	presented := s.request.Connection.TLS && certificate != nil
	validated := presented && certificate.Validated
	return (t.GetPresented() == nil || t.GetPresented().GetValue() == presented) &&
		(t.GetValidated() == nil || t.GetValidated().GetValue() == validated)
}

// MatchMetadata tells whether a matcher of dynamic metadata holds for the request.
func (s *Stream) MatchMetadata(m *matcherpb.MetadataMatcher) bool {
	var value *structpb.Value
	if fields := s.request.Metadata[m.GetFilter()]; fields != nil {
		value = structpb.NewStructValue(fields)
	}
	for _, segment := range m.GetPath() {
		value = value.GetStructValue().GetFields()[segment.GetKey()]
	}
	return s.matchValue(m.GetValue(), value) != m.GetInvert()
}

func (s *Stream) matchValue(m *matcherpb.ValueMatcher, v *structpb.Value) bool {
	if v == nil {
		return false
	}
	switch p := m.GetMatchPattern().(type) {
	case *matcherpb.ValueMatcher_NullMatch_:
		_, ok := v.GetKind().(*structpb.Value_NullValue)
		return ok
	case *matcherpb.ValueMatcher_DoubleMatch:
		number, ok := v.GetKind().(*structpb.Value_NumberValue)
		if !ok {
			return false
		}
		if r := p.DoubleMatch.GetRange(); r != nil {
			return number.NumberValue >= r.GetStart() && number.NumberValue < r.GetEnd()
		}
		return number.NumberValue == p.DoubleMatch.GetExact()
	case *matcherpb.ValueMatcher_StringMatch:
		text, ok := v.GetKind().(*structpb.Value_StringValue)
		return ok && s.MatchString(p.StringMatch, text.StringValue)
	case *matcherpb.ValueMatcher_BoolMatch:
		b, ok := v.GetKind().(*structpb.Value_BoolValue)
		return ok && b.BoolValue == p.BoolMatch
	case *matcherpb.ValueMatcher_PresentMatch:
		return p.PresentMatch
	case *matcherpb.ValueMatcher_ListMatch:
		return slices.ContainsFunc(v.GetListValue().GetValues(), func(v *structpb.Value) bool {
			return s.matchValue(p.ListMatch.GetOneOf(), v)
		})
	case *matcherpb.ValueMatcher_OrMatch:
		return slices.ContainsFunc(p.OrMatch.GetValueMatchers(), func(m *matcherpb.ValueMatcher) bool { return s.matchValue(m, v) })
	}
	return false
}
