package translate

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"meshbridge/translate/apisix"
)

var lists = flag.Int("lists", 3000, "the number of random route configurations that are compared with Envoy's rules")

// TestRoutesAreChosenAsEnvoyChoosesThem compares the objects of random route configurations, as the
// model of APISIX's router evaluates them, with a literal reading of Envoy's rules: the virtual host
// by domain, then the first route of its list that matches.
func TestRoutesAreChosenAsEnvoyChoosesThem(t *testing.T) {
	const requests = 12
	lists := *lists
	var several, found int
	for seed := range uint64(lists) {
		rng := rand.New(rand.NewPCG(seed, 1))
		// Small lists first, so that the first failure is small too.
		config := randomConfig(rng, 1+int(seed)*8/lists)
		s := chainState(t, config)
		e, err := apisix.NewEvaluator(s.Objects(), apisix.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if refused := e.Refused(); len(refused) > 0 {
			t.Fatalf("seed %d: %v\n%s", seed, refused, prototext.Format(config))
		}
		for range requests {
			r := randomRequest(rng)
			want := envoyChoice(config, r)
			d := e.Evaluate(r)
			got := "none"
			if d.Route != nil {
				parts := strings.Split(d.Route.Name, "|")
				got = parts[2]
			}
			if got != want && (want != "none" || got != "404") {
				t.Fatalf("seed %d: %s %s%s %v: APISIX chooses %q (%s), Envoy %q\n%s", seed, r.Method, r.Host, r.URI, r.Headers, got, d.RouteID, want, prototext.Format(config))
			}
			if want != "none" && want != "404" {
				found++
			}
		}
		for _, v := range config.GetVirtualHosts() {
			if len(v.GetRoutes()) > 1 {
				several++
				break
			}
		}
	}
	if found < lists || several < lists/4 {
		t.Errorf("the generator is too tame: %d requests matched a route, %d lists have several routes", found, several)
	}
}

// chainState returns a State with one mesh chain, "c", that serves the route configuration.
func chainState(tb testing.TB, config *routepb.RouteConfiguration) *State {
	tb.Helper()
	s, err := New(Options{Profile: Mesh()})
	if err != nil {
		tb.Fatal(err)
	}
	c := &Chain{Key: "c", HTTP: true, RouteConfig: config.GetName(), Inline: true, inline: config}
	s.table = chainTable{chains: []*Chain{c}}
	s.byKey["c"] = c
	s.decoded = map[string]*clusterpb.Cluster{}
	s.objects.begin()
	p := &step{state: s, chains: map[string]bool{"c": true}, clusters: map[string]bool{}}
	p.compileChains()
	p.compileClusters()
	s.objects.end()
	s.collectDiagnostics()
	return s
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

func randomPath(rng *rand.Rand) string {
	var b strings.Builder
	for range 1 + rng.IntN(3) {
		b.WriteString("/" + pick(rng, "a", "ab", "A", "b", "a+b", "a.b", "x*y", "a:b", ""))
	}
	p := b.String()
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return p
}

func randomString(rng *rand.Rand) *matcherpb.StringMatcher {
	m := &matcherpb.StringMatcher{IgnoreCase: rng.IntN(4) == 0}
	v := pick(rng, "", "a", "A", "b", "ab", "a.b", "1", "$", `\E`)
	switch rng.IntN(5) {
	case 0:
		m.MatchPattern = &matcherpb.StringMatcher_Exact{Exact: v}
	case 1:
		m.MatchPattern = &matcherpb.StringMatcher_Prefix{Prefix: v}
	case 2:
		m.MatchPattern = &matcherpb.StringMatcher_Suffix{Suffix: v}
	case 3:
		m.MatchPattern = &matcherpb.StringMatcher_Contains{Contains: v}
	default:
		re := pick(rng, "a.*", "a|b", "", "[ab]+", "(?i)A", "^a$")
		m.MatchPattern = &matcherpb.StringMatcher_SafeRegex{SafeRegex: &matcherpb.RegexMatcher{Regex: re}}
	}
	return m
}

func randomHeader(rng *rand.Rand) *routepb.HeaderMatcher {
	h := &routepb.HeaderMatcher{
		Name:                      pick(rng, "x-a", "x-b", ":method", ":authority"),
		InvertMatch:               rng.IntN(3) == 0,
		TreatMissingHeaderAsEmpty: rng.IntN(3) == 0,
	}
	switch rng.IntN(5) {
	case 0:
		h.HeaderMatchSpecifier = &routepb.HeaderMatcher_PresentMatch{PresentMatch: rng.IntN(2) == 0}
	case 1:
		h.HeaderMatchSpecifier = &routepb.HeaderMatcher_RangeMatch{RangeMatch: &typepb.Int64Range{Start: -1, End: int64(rng.IntN(3))}}
	case 2: // nothing said
	default:
		h.HeaderMatchSpecifier = &routepb.HeaderMatcher_StringMatch{StringMatch: randomString(rng)}
	}
	return h
}

func randomMatch(rng *rand.Rand) *routepb.RouteMatch {
	m := &routepb.RouteMatch{}
	path := randomPath(rng)
	switch rng.IntN(8) {
	case 0, 1:
		m.PathSpecifier = &routepb.RouteMatch_Path{Path: path}
	case 2, 3:
		m.PathSpecifier = &routepb.RouteMatch_Prefix{Prefix: path}
	case 4:
		if path = strings.TrimSuffix(path, "/"); path == "" {
			path = "/a"
		}
		m.PathSpecifier = &routepb.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: path}
	case 5:
		m.PathSpecifier = &routepb.RouteMatch_Prefix{Prefix: "/"}
	default:
		re := pick(rng, "/a.*", "/a/b", "/(a|b)/?.*", ".*", "/[^/]+", "/a/.*b", "(?i)/A.*", "/a\\+b(/.*)?")
		m.PathSpecifier = &routepb.RouteMatch_SafeRegex{SafeRegex: &matcherpb.RegexMatcher{Regex: re}}
	}
	if rng.IntN(5) == 0 && m.GetSafeRegex() == nil {
		m.CaseSensitive = wrapperspb.Bool(false)
	}
	if rng.IntN(3) == 0 {
		m.Headers = append(m.Headers, randomHeader(rng))
	}
	if rng.IntN(8) == 0 {
		q := &routepb.QueryParameterMatcher{Name: "q"}
		if rng.IntN(2) == 0 {
			q.QueryParameterMatchSpecifier = &routepb.QueryParameterMatcher_StringMatch{StringMatch: randomString(rng)}
		} else {
			q.QueryParameterMatchSpecifier = &routepb.QueryParameterMatcher_PresentMatch{PresentMatch: rng.IntN(2) == 0}
		}
		m.QueryParameters = append(m.QueryParameters, q)
	}
	return m
}

func randomConfig(rng *rand.Rand, size int) *routepb.RouteConfiguration {
	config := &routepb.RouteConfiguration{Name: "rc", IgnorePortInHostMatching: true}
	domains := []string{"a.com", "A.com.", "b.a.com", "*.a.com", "*-x.a.com", "a.*", "a.b.*", "[fd00::1]", "*"}
	rng.Shuffle(len(domains), func(i, j int) { domains[i], domains[j] = domains[j], domains[i] })
	if i, j := slices.Index(domains, "a.com"), slices.Index(domains, "A.com."); i >= 0 && j >= 0 {
		domains = slices.Delete(domains, max(i, j), max(i, j)+1) // one virtual host must have it
	}
	n := 0
	for v := range 1 + rng.IntN(min(size, 4)) {
		vhost := &routepb.VirtualHost{Name: "v" + strconv.Itoa(v)}
		for range 1 + rng.IntN(2) {
			if len(domains) > 0 {
				vhost.Domains, domains = append(vhost.Domains, domains[0]), domains[1:]
			}
		}
		for range rng.IntN(size + 1) {
			vhost.Routes = append(vhost.Routes, &routepb.Route{
				Name:   "r" + strconv.Itoa(n),
				Match:  randomMatch(rng),
				Action: &routepb.Route_Route{Route: &routepb.RouteAction{ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: "c"}}},
			})
			n++
		}
		if len(vhost.GetDomains()) > 0 {
			config.VirtualHosts = append(config.VirtualHosts, vhost)
		}
	}
	return config
}

func randomRequest(rng *rand.Rand) apisix.Request {
	r := apisix.Request{
		Method:  pick(rng, "GET", "POST", "a"),
		Host:    pick(rng, "a.com", "A.COM:80", "b.a.com", "c.b.a.com", "z-x.a.com", "a.b.c", "a.org", "other", "[fd00::1]:80"),
		URI:     randomPath(rng),
		Headers: map[string][]string{},
		Vars:    map[string]string{varChain: "c"},
	}
	for _, name := range []string{"x-a", "x-b"} {
		if rng.IntN(2) == 0 {
			r.Headers[name] = []string{pick(rng, "", "a", "A", "b", "ab", "axb", "a.b", "0", "-1", "1", "1x", "$", `\E`)}
		}
	}
	if rng.IntN(2) == 0 {
		r.URI += "?q=" + pick(rng, "", "a", "b", "A", "1")
	}
	return r
}

// The model of Envoy.

func envoyChoice(config *routepb.RouteConfiguration, r apisix.Request) string {
	v := envoyVirtualHost(config, r.Host)
	if v == nil {
		return "none"
	}
	path, query, _ := strings.Cut(r.URI, "?")
	for _, route := range v.GetRoutes() {
		if envoyMatches(route.GetMatch(), r, path, query) {
			return route.GetName()
		}
	}
	return "404"
}

func envoyVirtualHost(config *routepb.RouteConfiguration, host string) *routepb.VirtualHost {
	host = strings.ToLower(host)
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	var best *routepb.VirtualHost
	score := -1
	for _, v := range config.GetVirtualHosts() {
		for _, d := range v.GetDomains() {
			d = strings.TrimSuffix(strings.ToLower(d), ".")
			s := -1
			switch {
			case d == "*":
				s = 0
			case d == host:
				s = 3000
			case strings.HasPrefix(d, "*") && strings.HasSuffix(host, d[1:]) && len(host) > len(d)-1:
				s = 2000 + len(d)
			case strings.HasSuffix(d, "*") && strings.HasPrefix(host, d[:len(d)-1]) && len(host) > len(d)-1:
				s = 1000 + len(d)
			}
			if s > score {
				best, score = v, s
			}
		}
	}
	return best
}

func envoyMatches(m *routepb.RouteMatch, r apisix.Request, path, query string) bool {
	cut := func(s string) string {
		if m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue() {
			return strings.ToLower(s)
		}
		return s
	}
	var ok bool
	switch p := m.GetPathSpecifier().(type) {
	case *routepb.RouteMatch_Path:
		ok = cut(path) == cut(p.Path)
	case *routepb.RouteMatch_Prefix:
		ok = strings.HasPrefix(cut(path), cut(p.Prefix))
	case *routepb.RouteMatch_PathSeparatedPrefix:
		prefix := cut(p.PathSeparatedPrefix)
		ok = strings.HasPrefix(cut(path), prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/')
	case *routepb.RouteMatch_SafeRegex:
		ok = fullMatch(p.SafeRegex.GetRegex(), path)
	}
	for _, h := range m.GetHeaders() {
		ok = ok && envoyHeader(h, r)
	}
	for _, q := range m.GetQueryParameters() {
		value, present := "", false
		if name, v, _ := strings.Cut(query, "="); name == q.GetName() {
			value, present = v, true
		}
		switch s := q.GetQueryParameterMatchSpecifier().(type) {
		case *routepb.QueryParameterMatcher_StringMatch:
			ok = ok && present && envoyString(s.StringMatch, value)
		case *routepb.QueryParameterMatcher_PresentMatch:
			ok = ok && present == s.PresentMatch
		}
	}
	return ok
}

func fullMatch(re, s string) bool { return regexp.MustCompile(`\A(?:` + re + `)\z`).MatchString(s) }

func envoyHeader(h *routepb.HeaderMatcher, r apisix.Request) bool {
	var value string
	present := true
	switch h.GetName() {
	case ":method":
		value = r.Method
	case ":authority":
		value = r.Host
	default:
		var values []string
		values, present = r.Headers[h.GetName()]
		value = strings.Join(values, ",")
	}
	switch m := h.GetHeaderMatchSpecifier().(type) {
	case nil:
		return present != h.GetInvertMatch()
	case *routepb.HeaderMatcher_PresentMatch:
		return (present == m.PresentMatch) != h.GetInvertMatch()
	case *routepb.HeaderMatcher_RangeMatch:
		if !present && !h.GetTreatMissingHeaderAsEmpty() {
			return false
		}
		n, err := strconv.ParseInt(value, 10, 64)
		return (err == nil && n >= m.RangeMatch.GetStart() && n < m.RangeMatch.GetEnd()) != h.GetInvertMatch()
	case *routepb.HeaderMatcher_StringMatch:
		if !present && !h.GetTreatMissingHeaderAsEmpty() {
			return false
		}
		return envoyString(m.StringMatch, value) != h.GetInvertMatch()
	}
	panic(fmt.Sprintf("no model of %v", h))
}

func envoyString(m *matcherpb.StringMatcher, s string) bool {
	cut := func(s string) string {
		if m.GetIgnoreCase() {
			return strings.ToLower(s)
		}
		return s
	}
	switch p := m.GetMatchPattern().(type) {
	case *matcherpb.StringMatcher_Exact:
		return cut(s) == cut(p.Exact)
	case *matcherpb.StringMatcher_Prefix:
		return strings.HasPrefix(cut(s), cut(p.Prefix))
	case *matcherpb.StringMatcher_Suffix:
		return strings.HasSuffix(cut(s), cut(p.Suffix))
	case *matcherpb.StringMatcher_Contains:
		return strings.Contains(cut(s), cut(p.Contains))
	case *matcherpb.StringMatcher_SafeRegex:
		return fullMatch(p.SafeRegex.GetRegex(), s)
	}
	panic(fmt.Sprintf("no model of %v", m))
}
