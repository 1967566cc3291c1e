package explain

import (
	"fmt"
	"strings"
)

// maxNodes bounds how many endpoints Text prints.
const maxNodes = 8

// Text writes the answer for people.
func (a *Answer) Text() string {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s%s\n", label, fmt.Sprintf(format, args...))
	}
	line("chain", "%s (listener %s; %s)", a.Chain, a.Listener, a.ChainReason)
	if a.NotServed != "" {
		line("", "APISIX does not see such requests: %s", a.NotServed)
		return b.String()
	}
	if a.SSL != "" {
		line("shows", "%s", a.SSL)
	}
	if a.RouteID == "" {
		line("route", "none")
	} else {
		line("route", "%s  %s", a.RouteID, a.RouteName)
		if a.Origin != "" {
			line("", "from %s", a.Origin)
		}
		for _, name := range a.Extensions {
			line("", "extended by %s", name)
		}
	}
	if a.Delay > 0 {
		line("delay", "%g s", a.Delay)
	}
	switch {
	case a.Status != 0 && a.Location != "":
		line("answer", "%d to %s by %s", a.Status, a.Location, a.AnsweredBy)
	case a.Status != 0:
		line("answer", "%d by %s", a.Status, a.AnsweredBy)
	}
	if a.UpstreamID != "" {
		line("upstream", "%s  %s", a.UpstreamID, a.Upstream)
		for i, n := range a.Nodes {
			if i == maxNodes {
				line("", "… and %d more", len(a.Nodes)-maxNodes)
				break
			}
			line("", "%s port %d weight %d", n.Host, n.Port, n.Weight)
		}
	}
	for _, s := range a.Split {
		line("split", "%s weight %d", s.UpstreamID, s.Weight)
	}
	if a.URI != "" {
		line("sends", "%s to host %s", a.URI, a.Host)
	}
	for _, c := range a.Candidates {
		if !c.Matched {
			line("not", "%s: %s", c.RouteID, c.Reason)
		}
	}
	for _, n := range a.Notes {
		line("note", "%s", n)
	}
	return b.String()
}
