package console

import (
	"iter"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"meshbridge/cmd/internal/explain"
	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

// checkView is a request, and what would become of it.
type checkView struct {
	Asked  checkForm       `json:"request"`
	Answer *explain.Answer `json:"answer,omitempty"`
	Error  string          `json:"error,omitempty"`
	Chains []chainChoice   `json:"-"`
	// Losers are the candidates that were not chosen.
	Losers []explain.Candidate `json:"-"`
	// Methods are those to choose from.
	Methods []string `json:"-"`
}

// checkForm is what was asked.
type checkForm struct {
	Method string `json:"method"`
	Scheme string `json:"scheme"`
	Host   string `json:"host"`
	Path   string `json:"path"`
	// Headers has a line for each.
	Headers   string `json:"headers,omitempty"`
	Chain     string `json:"chain,omitempty"`
	Direction string `json:"direction,omitempty"`
}

type chainChoice struct{ Key, Label string }

// maxChains bounds the list of chains to choose from.
const maxChains = 500

func (s *Server) check(r *http.Request) (any, error) {
	q := r.URL.Query()
	v := checkView{Methods: []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}}
	v.Asked = checkForm{
		Method: q.Get("method"), Scheme: q.Get("scheme"), Host: strings.TrimSpace(q.Get("host")), Path: q.Get("path"),
		Headers: q.Get("headers"), Chain: q.Get("chain"), Direction: q.Get("direction"),
	}
	if v.Asked.Method == "" {
		v.Asked.Method = http.MethodGet
	}
	if v.Asked.Scheme == "" {
		v.Asked.Scheme = "http"
	}
	if !strings.HasPrefix(v.Asked.Path, "/") {
		v.Asked.Path = "/" + v.Asked.Path
	}
	world := s.config.World()
	for _, c := range world.Chains {
		if c.HTTP && c.NotServed == "" && len(v.Chains) < maxChains {
			v.Chains = append(v.Chains, chainChoice{c.Key, c.Key + " (" + chainLabel(c) + ")"})
		}
	}
	if v.Asked.Host == "" {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			return nil, problem{http.StatusBadRequest, "host: say for which host, such as ?host=reviews:9080&path=/"}
		}
		return v, nil
	}
	if !world.Ready {
		return nil, errStarting
	}
	answer, err := s.explain(world, v.Asked)
	if err != nil {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			return nil, problem{http.StatusBadRequest, err.Error()}
		}
		v.Error = err.Error()
		return v, nil
	}
	v.Answer = &answer
	v.Losers = slices.DeleteFunc(slices.Clone(answer.Candidates), func(c explain.Candidate) bool { return c.Matched })
	return v, nil
}

func (s *Server) explain(world World, asked checkForm) (explain.Answer, error) {
	headers, err := parseHeaders(asked.Headers)
	if err != nil {
		return explain.Answer{}, err
	}
	x, err := s.index()
	if err != nil {
		return explain.Answer{}, err
	}
	evaluator, err := x.evaluator()
	if err != nil {
		return explain.Answer{}, err
	}
	return explain.Explain(explain.World{Profile: s.config.Profile, Chains: world.Chains, Evaluator: evaluator}, explain.Query{
		URL: asked.Scheme + "://" + asked.Host + asked.Path, Method: asked.Method, Headers: headers,
		Chain: asked.Chain, Direction: translate.Direction(asked.Direction),
	})
}

// all yields the objects by their keys.
func (x *index) all() iter.Seq[apisix.Object] {
	return func(yield func(apisix.Object) bool) {
		for _, key := range x.keys {
			if !yield(x.byKey[key].Object) {
				return
			}
		}
	}
}

func parseHeaders(text string) (map[string][]string, error) {
	headers := map[string][]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if name = strings.ToLower(strings.TrimSpace(name)); !ok || name == "" {
			return nil, problem{http.StatusBadRequest, "headers: " + line + ": want NAME: VALUE"}
		}
		headers[name] = append(headers[name], strings.TrimSpace(value))
	}
	return headers, nil
}

// chainLabel says which connections a chain receives.
func chainLabel(c *translate.Chain) string {
	parts := []string{string(c.Direction)}
	switch {
	case c.Address.IsValid() && !c.Address.IsUnspecified():
		parts = append(parts, netip.AddrPortFrom(c.Address, uint16(c.Port)).String())
	case c.Port != 0:
		parts = append(parts, "port "+strconv.Itoa(c.Port))
	default:
		parts = append(parts, "any other port")
	}
	switch {
	case c.MeshTLS:
		parts = append(parts, "mesh TLS")
	case c.TLS:
		parts = append(parts, "TLS")
	}
	if len(c.ServerNames) > 0 {
		parts = append(parts, strings.Join(c.ServerNames[:min(len(c.ServerNames), 3)], ", "))
	}
	return strings.Join(parts, ", ")
}
