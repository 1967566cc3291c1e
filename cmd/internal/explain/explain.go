// Package explain answers which route and upstream APISIX would choose for a URL, and why not the
// others. The command line uses it on files, the running bridge on what it serves.
package explain

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

// Query is a request to explain.
type Query struct {
	URL     string              `json:"url"`
	Method  string              `json:"method,omitempty"`
	Headers map[string][]string `json:"headers,omitempty"`
	// Direction is that of the connection; empty means outbound or, where there are none, a
	// gateway's.
	Direction translate.Direction `json:"direction,omitempty"`
	// Chain is the key of the chain on which the request arrives; empty means to choose by URL.
	Chain string `json:"chain,omitempty"`
}

// World is what APISIX has been given.
type World struct {
	Profile translate.Profile
	Chains  []*translate.Chain
	Objects iter.Seq[apisix.Object] // sorted by key
	// Ask answers what APISIX asks about tokens; nil where nobody does.
	Ask func(apisix.AuthRequest) apisix.AuthAnswer
	// Evaluator is that of Objects and Ask; nil makes one.
	Evaluator *apisix.Evaluator
}

// Answer is the explanation of a Query.
type Answer struct {
	Chain    string `json:"chain,omitempty"`
	Listener string `json:"listener,omitempty"`
	// ChainReason says why the chain was chosen or what is special about it.
	ChainReason string `json:"chain_reason,omitempty"`
	// NotServed says why APISIX does not see such a request at all.
	NotServed  string  `json:"not_served,omitempty"`
	RouteID    string  `json:"route_id,omitempty"`
	RouteName  string  `json:"route_name,omitempty"`
	Origin     string  `json:"origin,omitempty"`
	Status     int     `json:"status,omitempty"`
	AnsweredBy string  `json:"answered_by,omitempty"`
	Location   string  `json:"location,omitempty"`
	Delay      float64 `json:"delay_seconds,omitempty"`
	// Extensions are the documents of --extensions that the route has plugins of.
	Extensions []string      `json:"extensions,omitempty"`
	UpstreamID string        `json:"upstream_id,omitempty"`
	Upstream   string        `json:"upstream_name,omitempty"`
	Nodes      []apisix.Node `json:"nodes,omitempty"`
	Split      []Share       `json:"split,omitempty"`
	Host       string        `json:"host,omitempty"`
	URI        string        `json:"uri,omitempty"`
	Candidates []Candidate   `json:"candidates,omitempty"`
	Notes      []string      `json:"notes,omitempty"`
	// SSL is the id of the ssl with the certificate that the client is shown.
	SSL string `json:"ssl,omitempty"`
}

// Share is one destination of a weighted split.
type Share struct {
	UpstreamID string `json:"upstream_id"`
	Weight     int    `json:"weight"`
}

// Candidate is a route whose host and path fit, in the order in which APISIX tries them.
type Candidate struct {
	RouteID string `json:"route_id"`
	Matched bool   `json:"matched,omitempty"`
	// Reason says why the route was not chosen.
	Reason string `json:"reason,omitempty"`
}

// Explain answers the query. The error is about the query.
func Explain(w World, q Query) (Answer, error) {
	u, err := parseURL(q.URL)
	if err != nil {
		return Answer{}, err
	}
	chain, reason, err := choose(w, q, u)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Chain: chain.Key, Listener: chain.Listener, ChainReason: reason, NotServed: chain.NotServed}
	if chain.NotServed != "" {
		return a, nil
	}
	vars, err := translate.RequestVars(w.Profile, chain, connection(u, w.Chains))
	if err != nil {
		return Answer{}, err
	}
	evaluator := w.Evaluator
	if evaluator == nil {
		if evaluator, err = apisix.NewEvaluator(w.Objects, apisix.Options{Ask: w.Ask}); err != nil {
			return Answer{}, err
		}
	}
	host := u.Host
	for name, values := range q.Headers {
		if strings.EqualFold(name, "host") && len(values) > 0 {
			host = values[0]
		}
	}
	d := evaluator.Evaluate(apisix.Request{
		Method: q.Method, Scheme: u.Scheme, Host: host, URI: u.RequestURI(), Headers: q.Headers,
		Vars: vars,
	})
	a.fill(d)
	if chain.Terminated && u.Scheme == "https" {
		a.fillTLS(evaluator.Handshake(apisix.Handshake{ServerName: connection(u, w.Chains).ServerName}), chain)
	}
	return a, nil
}

func (a *Answer) fill(d apisix.Decision) {
	a.RouteID, a.Status, a.AnsweredBy, a.Location, a.Delay = d.RouteID, d.Status, d.AnsweredBy, d.Location, d.Delay
	a.UpstreamID, a.Host, a.URI = d.UpstreamID, d.Host, d.URI
	a.Notes = d.Notes
	for _, c := range d.Candidates {
		a.Candidates = append(a.Candidates, Candidate{RouteID: c.RouteID, Matched: c.Matched, Reason: c.Reason})
	}
	if d.Route != nil {
		a.RouteName, a.Origin = d.Route.Name, d.Route.Desc
		if by := d.Route.Labels[translate.LabelExtensions]; by != "" {
			a.Extensions = strings.Split(by, ",")
		}
	}
	if d.Upstream != nil {
		a.Upstream, a.Nodes = d.Upstream.Name, d.Upstream.Nodes
	}
	for _, s := range d.Split {
		a.Split = append(a.Split, Share{UpstreamID: s.UpstreamID, Weight: s.Weight})
	}
}

// fillTLS adds what happens before the request. The client is taken to have a good certificate where
// one is needed.
func (a *Answer) fillTLS(s apisix.Security, chain *translate.Chain) {
	switch {
	case s.SSL != nil:
		a.SSL = s.SSL.ID
	case !chain.RequireClientCertificate:
		a.Notes = append(a.Notes, "the TLS handshake fails: "+s.Refused)
	}
	if chain.RequireClientCertificate {
		a.Notes = append(a.Notes, "the client needs a certificate")
	}
}

func parseURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("URL %q: want http://HOST[:PORT]/PATH or https://…", s)
	}
	if _, err := port(u); err != nil {
		return nil, fmt.Errorf("URL %q: port: %w", s, err)
	}
	return u, nil
}

func port(u *url.URL) (int, error) {
	p := u.Port()
	if p == "" {
		p = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	n, err := strconv.ParseUint(p, 10, 16)
	return int(n), err
}

// connection returns what a client that opens the URL connects to. A host name stands for the
// address of the listener that is for it alone, if there is one.
func connection(u *url.URL, chains []*translate.Chain) translate.Connection {
	c := translate.Connection{}
	c.Port, _ = port(u) // parseURL has checked it
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		c.Address = ip
		return c
	}
	if u.Scheme == "https" {
		c.ServerName = u.Hostname()
	}
	for _, chain := range chains {
		if chain.Port == c.Port && serves(chain, u.Hostname()) {
			c.Address = chain.Address
		}
	}
	return c
}

// serves tells whether the route configuration of a sniffed port, which is named FQDN:PORT, is that
// of the host, which may be written short.
func serves(c *translate.Chain, host string) bool {
	fqdn, _, ok := strings.Cut(c.RouteConfig, ":")
	return ok && (fqdn == host || strings.HasPrefix(fqdn, host+"."))
}

// choose returns the chain on which a client that opens the URL arrives.
func choose(w World, q Query, u *url.URL) (chain *translate.Chain, reason string, err error) {
	if q.Chain != "" {
		for _, c := range w.Chains {
			if c.Key == q.Chain {
				return c, "named by the query", nil
			}
		}
		return nil, "", fmt.Errorf("there is no chain %q; there are %s", q.Chain, describe(w.Chains))
	}
	conn := connection(u, w.Chains)
	directions := []translate.Direction{translate.Outbound, translate.Edge}
	if q.Direction != "" {
		directions = []translate.Direction{q.Direction}
	}
	secure := u.Scheme == "https"
	for _, tls := range []bool{secure, true} {
		for _, d := range directions {
			c := translate.FindChain(w.Chains, d, conn, tls)
			if c == nil || tls != secure && !c.MeshTLS { // inside mesh TLS, clients speak http
				continue
			}
			return c, fmt.Sprintf("%s, port %d", c.Direction, conn.Port), nil
		}
	}
	return nil, "", fmt.Errorf("no chain receives %s connections to port %d; there are %s",
		cmp.Or(string(q.Direction), "outbound or gateway"), conn.Port, describe(w.Chains))
}

// describe lists the chains that a query can be about.
func describe(chains []*translate.Chain) string {
	var list []string
	for _, c := range chains {
		if c.HTTP {
			list = append(list, fmt.Sprintf("%s (%s, port %d)", c.Key, c.Direction, c.Port))
		}
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
