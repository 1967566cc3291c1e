package envoytest

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	jwtpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

const jwtFilter = "envoy.filters.http.jwt_authn"

// Failures that are told apart by more than their text.
const (
	failureMissing   = "Jwt is missing"
	failureIssuer    = "Jwt issuer is not configured"
	failureAudience  = "Audiences in Jwt are not allowed"
	failureSignature = "Jwt verification fails"
)

// jwtRun is one request on its way through the filter.
type jwtRun struct {
	*Stream
	config   *jwtpb.JwtAuthentication
	metadata map[string]*structpb.Value
}

// runJWT verifies the tokens of the request, or answers.
func (s *Stream) runJWT(config *jwtpb.JwtAuthentication) {
	if config.GetFilterStateRules() != nil {
		s.undecided("a rule of the JWT filter by filter state")
		return
	}
	if config.GetBypassCorsPreflight() && s.isPreflight() {
		return
	}
	i := slices.IndexFunc(config.GetRules(), func(r *jwtpb.RequirementRule) bool {
		return r.GetMatch().GetPrefix() == "/" || s.config != nil && s.matches(r.GetMatch())
	})
	if i < 0 {
		return
	}
	run := &jwtRun{s, config, map[string]*structpb.Value{}}
	requirement := config.GetRules()[i].GetRequires()
	if name := config.GetRules()[i].GetRequirementName(); name != "" {
		requirement = config.GetRequirementMap()[name]
	}
	failure := run.require(requirement)
	if len(run.metadata) > 0 {
		all := maps.Clone(s.request.Metadata)
		if all == nil {
			all = map[string]*structpb.Struct{}
		}
		all[jwtFilter] = &structpb.Struct{Fields: run.metadata}
		s.request.Metadata = all
	}
	if failure == "" || s.decision.Outcome != "" {
		return
	}
	status := 401
	if failure == failureAudience {
		status = 403
	}
	s.decision.answer(Denied, status)
	if !config.GetStripFailureResponse() {
		s.decision.Body = failure
	}
}

func (s *Stream) isPreflight() bool {
	return s.headers.get(":method") == "OPTIONS" && s.headers.get("origin") != "" && s.headers.get("access-control-request-method") != ""
}

// require returns why the request fails a requirement, empty where it does not.
func (r *jwtRun) require(q *jwtpb.JwtRequirement) string {
	providers := r.config.GetProviders()
	switch kind := q.GetRequiresType().(type) {
	case nil:
		return ""
	case *jwtpb.JwtRequirement_ProviderName:
		return r.requireProvider(providers[kind.ProviderName], nil)
	case *jwtpb.JwtRequirement_ProviderAndAudiences:
		return r.requireProvider(providers[kind.ProviderAndAudiences.GetProviderName()], kind.ProviderAndAudiences.GetAudiences())
	case *jwtpb.JwtRequirement_RequiresAll:
		for _, child := range kind.RequiresAll.GetRequirements() {
			if failure := r.require(child); failure != "" {
				return failure
			}
		}
		return ""
	case *jwtpb.JwtRequirement_RequiresAny:
		return r.requireAny(kind.RequiresAny.GetRequirements())
	case *jwtpb.JwtRequirement_AllowMissing:
		return r.allowMissing()
	case *jwtpb.JwtRequirement_AllowMissingOrFailed:
		r.allowMissing()
		return ""
	}
	r.undecided("a requirement of the JWT filter")
	return ""
}

func (r *jwtRun) requireAny(list []*jwtpb.JwtRequirement) string {
	missing, failed := false, false
	var failures []string
	for _, q := range list {
		switch q.GetRequiresType().(type) {
		case *jwtpb.JwtRequirement_AllowMissing:
			missing = true
		case *jwtpb.JwtRequirement_AllowMissingOrFailed:
			failed = true
		default:
			failure := r.require(q)
			if failure == "" {
				return ""
			}
			failures = append(failures, failure)
		}
	}
	if len(failures) == 0 {
		if missing && !failed {
			return r.allowMissing()
		}
		r.allowMissing()
		return ""
	}
	// The last one that says something about a token, then the first that knows of one.
	final := failureMissing
	for _, failure := range failures {
		if failure != failureMissing && failure != failureIssuer || final == failureMissing {
			final = failure
		}
	}
	if failed || missing && final == failureMissing {
		return ""
	}
	return final
}

func (r *jwtRun) requireProvider(p *jwtpb.JwtProvider, audiences []string) string {
	tokens := r.tokens([]*jwtpb.JwtProvider{p})
	if len(tokens) == 0 {
		return failureMissing
	}
	if audiences == nil {
		audiences = p.GetAudiences()
	}
	for _, t := range slices.Backward(tokens) {
		if failure := r.verify(t, p, audiences); failure != "" {
			return failure
		}
	}
	return ""
}

// allowMissing verifies what tokens there are, of all providers. Every one must be valid, which is stricter
// than Envoy where one of several is not.
func (r *jwtRun) allowMissing() string {
	var all []*jwtpb.JwtProvider
	for _, name := range slices.Sorted(maps.Keys(r.config.GetProviders())) {
		all = append(all, r.config.GetProviders()[name])
	}
	failure := ""
	for _, t := range slices.Backward(r.tokens(all)) {
		parsed, wrong := parseJWT(t.text)
		if wrong == "" {
			i := slices.IndexFunc(all, func(p *jwtpb.JwtProvider) bool { return p.GetIssuer() == parsed.issuer() })
			if i < 0 { // or one for any issuer
				i = slices.IndexFunc(all, func(p *jwtpb.JwtProvider) bool { return p.GetIssuer() == "" })
			}
			if wrong = failureIssuer; i >= 0 {
				wrong = r.verify(t, all[i], all[i].GetAudiences())
			}
		}
		if failure == "" {
			failure = wrong
		}
	}
	return failure
}

// jwtPlace is a token where it was found; header is empty for those that are not in one.
type jwtPlace struct {
	text, header string
	issuers      []string
}

// tokens sanitizes the headers of the providers, and finds their tokens: in headers by name and prefix,
// then in parameters, then in cookies, each by name.
func (r *jwtRun) tokens(providers []*jwtpb.JwtProvider) []jwtPlace {
	headers, params, cookies := map[[2]string][]string{}, map[string][]string{}, map[string][]string{}
	for _, p := range providers {
		r.headers.remove(p.GetForwardPayloadHeader())
		for _, c := range p.GetClaimToHeaders() {
			r.headers.remove(c.GetHeaderName())
		}
		for _, h := range p.GetFromHeaders() {
			key := [2]string{strings.ToLower(h.GetName()), h.GetValuePrefix()}
			headers[key] = append(headers[key], p.GetIssuer())
		}
		for _, name := range p.GetFromParams() {
			params[name] = append(params[name], p.GetIssuer())
		}
		for _, name := range p.GetFromCookies() {
			cookies[name] = append(cookies[name], p.GetIssuer())
		}
		if len(p.GetFromHeaders())+len(p.GetFromParams())+len(p.GetFromCookies()) == 0 {
			key := [2]string{"authorization", "Bearer "}
			headers[key] = append(headers[key], p.GetIssuer())
			params["access_token"] = append(params["access_token"], p.GetIssuer())
		}
	}
	var out []jwtPlace
	for _, key := range slices.SortedFunc(maps.Keys(headers), func(a, b [2]string) int { return strings.Compare(a[0]+a[1], b[0]+b[1]) }) {
		for _, value := range r.headers.values(key[0]) {
			if _, rest, found := strings.Cut(value, key[1]); found {
				if i := strings.IndexFunc(rest, isTokenCharacter); key[1] != "" && i >= 0 {
					value = rest[i:]
				}
				out = append(out, jwtPlace{value, key[0], headers[key]})
			}
		}
	}
	_, query, _ := strings.Cut(r.headers.get(":path"), "?")
	for _, name := range slices.Sorted(maps.Keys(params)) {
		for pair := range strings.SplitSeq(query, "&") {
			if k, v, _ := strings.Cut(pair, "="); percentDecoded(k) == name {
				out = append(out, jwtPlace{percentDecoded(v), "", params[name]})
				break
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cookies)) {
		if value, ok := r.jwtCookie(name); ok {
			out = append(out, jwtPlace{value, "", cookies[name]})
		}
	}
	return out
}

func isTokenCharacter(c rune) bool {
	return c == '-' || c == '_' || c == '.' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func percentDecoded(s string) string {
	if decoded, err := url.PathUnescape(s); err == nil {
		return decoded
	}
	return s
}

func (r *jwtRun) jwtCookie(name string) (string, bool) {
	for _, line := range r.headers.values("cookie") {
		for pair := range strings.SplitSeq(line, ";") {
			if k, v, found := strings.Cut(strings.Trim(pair, " \t"), "="); found && k == name {
				if len(v) > 1 && strings.HasPrefix(v, `"`) && strings.HasSuffix(v, `"`) {
					v = v[1 : len(v)-1]
				}
				return v, true
			}
		}
	}
	return "", false
}

// verify returns why a token is not valid, and does what is done with one that is.
func (r *jwtRun) verify(place jwtPlace, p *jwtpb.JwtProvider, audiences []string) string {
	t, failure := parseJWT(place.text)
	if failure != "" {
		return failure
	}
	if !slices.Contains(place.issuers, t.issuer()) && !slices.Contains(place.issuers, "") {
		return failureIssuer
	}
	skew := float64(p.GetClockSkewSeconds())
	if skew == 0 {
		skew = 60
	}
	now := float64(time.Now().Unix())
	switch {
	case now+skew < t.number("nbf"):
		return "Jwt not yet valid"
	case t.number("exp") > 0 && now > t.number("exp")+skew:
		return "Jwt is expired"
	case p.GetSubjects() != nil && !r.MatchString(p.GetSubjects(), t.payload.GetFields()["sub"].GetStringValue()):
		return failureSignature
	case len(audiences) > 0 && !slices.ContainsFunc(t.audiences(), func(a string) bool {
		return slices.ContainsFunc(audiences, func(b string) bool { return bareURL(a) == bareURL(b) })
	}):
		return failureAudience
	}
	if failure := t.verifySignature(p.GetLocalJwks().GetInlineString()); failure != "" {
		return failure
	}
	if name := p.GetForwardPayloadHeader(); name != "" {
		r.headers.add(name, t.parts[1])
	}
	for _, c := range p.GetClaimToHeaders() {
		v := structpb.NewStructValue(t.payload)
		for key := range strings.SplitSeq(c.GetClaimName(), ".") {
			v = v.GetStructValue().GetFields()[key]
		}
		if text := v.GetStringValue(); text != "" {
			r.headers.add(c.GetHeaderName(), text)
		} else if v.GetNumberValue() != 0 || v.GetBoolValue() {
			r.headers.add(c.GetHeaderName(), Unpredictable)
		}
	}
	if !p.GetForward() && place.header != "" {
		r.headers.remove(place.header)
	}
	if name := p.GetPayloadInMetadata(); name != "" {
		r.metadata[name] = structpb.NewStructValue(t.normalized(p.GetNormalizePayloadInMetadata().GetSpaceDelimitedClaims()))
	}
	return ""
}

func bareURL(s string) string {
	s = strings.TrimSuffix(s, "/")
	if strings.HasPrefix(s, "http://") {
		return s[len("http://"):]
	}
	return strings.TrimPrefix(s, "https://")
}
