package soak

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// propagation bounds how long a change may take from a file to requests, where everything is in order.
// It is for machines that are busy with other things, and asserts no speed.
const propagation = 15 * time.Second

// lastGoodLag is by how much the file of the last good state may be older than what was served: endpoints
// are written after half a minute, and what the disk had no room for a minute later.
const lastGoodLag = 100 * time.Second

// request is what a client asks.
type request struct {
	host    int
	path    string
	visitor bool
}

func (r request) String() string {
	if r.visitor {
		return hostName(r.host) + r.path + " as " + visitor
	}
	return hostName(r.host) + r.path
}

// answer is what it gets.
type answer struct {
	began, ended time.Time
	err          error
	status       int
	stamp        string // of the route
	backend      string
}

// side is a way into the mesh: a gateway, its bridge and its APISIX.
type side struct {
	name string
	// current is in disorder while configuration may be late, path while requests may fail, old while the
	// last good state may be served.
	current, path, old *health
}

// oldest returns the time of the oldest configuration that may be in effect in a time.
func (s *side) oldest(began, ended time.Time) time.Time {
	from := s.current.settled(began, propagation)
	if s.old.during(began.Add(-propagation), ended) {
		from = from.Add(-lastGoodLag)
	}
	return from
}

// judge returns what is wrong with an answer; empty is nothing.
func (m *mesh) judge(s *side, r request, a answer) string {
	from := s.oldest(a.began, a.ended)
	sites := m.sites[r.host].during(from, a.ended)
	absent := slices.ContainsFunc(sites, func(s site) bool { return len(s.rules) == 0 })
	switch {
	case a.err != nil || a.status >= http.StatusInternalServerError:
		if s.path.during(a.began, a.ended) {
			return ""
		}
		if a.err != nil {
			return fmt.Sprintf("%s: %v, and nothing is away", r, a.err)
		}
		return fmt.Sprintf("%s: status %d, and nothing is away", r, a.status)
	case a.status == http.StatusNotFound:
		if absent {
			return ""
		}
		return fmt.Sprintf("%s: status 404, and the host exists", r)
	case a.status != http.StatusOK:
		return fmt.Sprintf("%s: status %d", r, a.status)
	}
	for _, site := range sites {
		for i, rule := range site.rules {
			if a.stamp != stamp(r.host, site.generation, i) {
				continue
			}
			if i != site.first(r) {
				return fmt.Sprintf("%s: answered by rule %s, and rule %d comes first", r, a.stamp, site.first(r))
			}
			return m.judgeBackend(r.String(), rule.to, a, from)
		}
	}
	return fmt.Sprintf("%s: answered by route %q, and those that may be in effect are %v", r, a.stamp, sites)
}

// judgeBackend tells whether one of the services may have the backend as an endpoint.
func (m *mesh) judgeBackend(what string, to []int, a answer, from time.Time) string {
	var may []string
	for _, s := range to {
		for _, p := range m.pools[s].during(from, a.ended) {
			for _, b := range p.members {
				if a.backend == backendName(s, b) {
					return ""
				}
				may = append(may, backendName(s, b))
			}
		}
	}
	slices.Sort(may)
	return fmt.Sprintf("%s: answered by backend %q by route %q, and those that may be in effect are %v", what, a.backend, a.stamp, slices.Compact(may))
}

// judgeTCP is judge for a connection to a port.
func (m *mesh) judgeTCP(s *side, port int, a answer) string {
	what := fmt.Sprintf("TCP port %d", firstTCPPort+port)
	if a.err != nil {
		if s.path.during(a.began, a.ended) {
			return ""
		}
		return fmt.Sprintf("%s: %v, and nothing is away", what, a.err)
	}
	from := s.oldest(a.began, a.ended)
	return m.judgeBackend(what, m.tcp[port].during(from, a.ended), a, from)
}

// first returns the first rule that a request matches.
func (s site) first(r request) int {
	return slices.IndexFunc(s.rules, func(rule rule) bool {
		return strings.HasPrefix(r.path, rule.prefix) && (!rule.visitor || r.visitor)
	})
}
