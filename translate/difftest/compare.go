package difftest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"meshbridge/translate/apisix"
	"meshbridge/translate/envoytest"
)

// aspect is what two decisions differ in.
type aspect string

const (
	// aspectAnswer: one side forwards and the other answers, or they answer with different statuses.
	aspectAnswer aspect = "answer"
	// aspectRoute: another route was chosen, which may not matter.
	aspectRoute aspect = "route"
	// aspectCluster: requests go to another cluster.
	aspectCluster  aspect = "cluster"
	aspectLocation aspect = "location"
	aspectBody     aspect = "body"
	aspectHost     aspect = "host"
	aspectPath     aspect = "path"
	aspectDelay    aspect = "delay"
	aspectTimeout  aspect = "timeout"
	aspectRetries  aspect = "retries"
	// aspectRequestHeader and aspectResponseHeader: a header differs, which Difference.Name names.
	aspectRequestHeader  aspect = "request header"
	aspectResponseHeader aspect = "response header"
)

// difference is one aspect in which the sides disagree.
type difference struct {
	aspect aspect
	// name is that of a header.
	name         string
	envoy, apisx string
}

func (d difference) String() string {
	what := string(d.aspect)
	if d.name != "" {
		what += " " + d.name
	}
	return fmt.Sprintf("%s: Envoy %q, APISIX %q", what, d.envoy, d.apisx)
}

// outcome is a pair's two decisions.
type outcome struct {
	pair
	world          *World
	envoyDecision  envoytest.Decision
	apisixDecision apisix.Decision
}

// forwards tells whether APISIX sends the request to an upstream, be it one without endpoints.
func (o *outcome) forwards() bool {
	d := o.apisixDecision
	return d.Status == 0 && d.AnsweredBy != "tls" || d.AnsweredBy == "upstream" && d.UpstreamID != ""
}

// comparison collects differences.
type comparison struct {
	*outcome
	differences []difference
}

func (c *comparison) check(a aspect, name, envoy, apisx string) {
	if envoy != apisx {
		c.differences = append(c.differences, difference{a, name, envoy, apisx})
	}
}

// compare returns what the decisions differ in.
func compare(o *outcome) []difference {
	c := &comparison{outcome: o}
	e, a := o.envoyDecision, o.apisixDecision
	switch {
	case e.Outcome == envoytest.Denied && a.Status == 403 && (e.Status == 403 || a.AnsweredBy != pluginForwardAuth):
		return nil // before the route counts, and by rules before tokens are looked at
	case e.Outcome == envoytest.Forward && !o.forwards():
		c.check(aspectAnswer, "", "forward to "+e.Cluster, strconv.Itoa(a.Status)+" from "+a.AnsweredBy)
	case e.Outcome == envoytest.Forward:
		c.compareForward()
	case e.Status == 503 && e.Outcome == envoytest.NoCluster && a.Status == 503: // from an empty upstream
	case e.Outcome == envoytest.Denied && e.RouteIndex < 0 && a.Status == 404: // there is nothing to be refused
	case o.forwards() || a.Status != e.Status:
		got := strconv.Itoa(a.Status)
		if o.forwards() {
			got = "forward to " + cluster(a.Upstream)
		}
		c.check(aspectAnswer, "", strconv.Itoa(e.Status)+" "+string(e.Outcome), got)
	default:
		c.compareAnswer()
	}
	if len(c.differences) == 0 || c.differences[0].aspect != aspectAnswer {
		c.compareRoute()
		c.check(aspectDelay, "", e.Delay.String(), time.Duration(a.Delay*float64(time.Second)).String())
	}
	return c.differences
}

// compareRoute compares the names of the routes where both have one.
func (c *comparison) compareRoute() {
	e, a := c.envoyDecision, c.apisixDecision
	if e.Route == "" || a.Route == nil {
		return
	}
	name := "|" + e.VirtualHost + "|" + e.Route
	if i := strings.Index(a.Route.Name, name); i < 0 && len(a.Route.Name) < 250 {
		c.check(aspectRoute, "", name, a.Route.Name)
	}
}

func (c *comparison) compareForward() {
	e, a := c.envoyDecision, c.apisixDecision
	if !c.goesTo(e) {
		c.check(aspectCluster, "", e.Cluster, c.destinations())
	}
	if !e.HostOfEndpoint {
		c.check(aspectHost, "", e.Host, a.Host)
	}
	c.check(aspectPath, "", e.Path, a.URI)
	c.compareHeaders(aspectRequestHeader, linesOf(e.Headers), a.Headers)
	if a.Status == 0 { // otherwise there is no endpoint that would respond
		c.compareHeaders(aspectResponseHeader, linesOf(e.Response), a.Response)
	}
	c.compareTimeouts()
}

// goesTo tells whether APISIX forwards to the cluster that Envoy drew, or to each with its weight.
func (c *comparison) goesTo(e envoytest.Decision) bool {
	a := c.apisixDecision
	if len(a.Split) == 0 {
		return isCluster(cluster(a.Upstream), e.Cluster)
	}
	weights := map[string]uint32{}
	for _, w := range e.Weights {
		if w.Weight > 0 {
			weights[w.Cluster] += w.Weight
		}
	}
	return len(a.Split) == len(weights) && !slices.ContainsFunc(a.Split, func(u apisix.WeightedUpstream) bool {
		for name, weight := range weights {
			if isCluster(c.upstream(u.UpstreamID), name) {
				return int(weight) != u.Weight
			}
		}
		return true
	})
}

func (c *comparison) upstream(id string) string { return c.world.upstreams[id] }

func (c *comparison) destinations() string {
	a := c.apisixDecision
	if len(a.Split) == 0 {
		return cluster(a.Upstream)
	}
	var out []string
	for _, u := range a.Split {
		out = append(out, fmt.Sprint(c.upstream(u.UpstreamID), " ", u.Weight))
	}
	return strings.Join(out, ", ")
}

// isCluster tells whether an upstream's name is that of a cluster, in any variant.
func isCluster(upstream, cluster string) bool {
	rest, ok := strings.CutPrefix(upstream, cluster)
	return ok && (rest == "" || rest[0] == '~')
}

func (c *comparison) compareAnswer() {
	e, a := c.envoyDecision, c.apisixDecision
	if e.Outcome == envoytest.Rejected {
		return
	}
	c.check(aspectLocation, "", canonicalLocation(c.absolute(e.Location)), canonicalLocation(c.absolute(a.Location)))
	if (e.Outcome == envoytest.Direct || e.Outcome == envoytest.Fault || e.Outcome == envoytest.Denied && e.Body != "") && e.Body != envoytest.Unpredictable && e.GRPCStatus == "" {
		c.check(aspectBody, "", e.Body, a.Body)
	}
	ours := maps.Clone(a.Response)
	if e.GRPCStatus != "" {
		c.check(aspectResponseHeader, "grpc-status", e.GRPCStatus, strings.Join(ours["grpc-status"], ","))
	}
	if e.Outcome != envoytest.Direct && e.Outcome != envoytest.Redirect && e.Outcome != envoytest.Preflight {
		return
	}
	theirs := linesOf(e.Response)
	// Envoy adds these to its own answers after the configuration.
	for _, name := range []string{"location", "content-type", "content-length"} {
		delete(ours, name)
		delete(theirs, name)
	}
	c.compareHeaders(aspectResponseHeader, theirs, ours)
}

// absolute resolves a location as the client does. The scheme of mesh TLS is what the client used.
func (c *comparison) absolute(location string) string {
	if !strings.HasPrefix(location, "/") {
		return location
	}
	scheme := "http"
	if c.envoy.Connection.TLS {
		scheme = "https"
	}
	return scheme + "://" + c.envoy.Host + location
}

// canonicalLocation is a location with its host in lower case: that makes no difference to clients.
func canonicalLocation(location string) string {
	scheme, rest, ok := strings.Cut(location, "://")
	if !ok {
		return location
	}
	host, path, _ := strings.Cut(rest, "/")
	return scheme + "://" + strings.ToLower(host) + "/" + path
}

func (c *comparison) compareHeaders(a aspect, envoy, apisx map[string][]string) {
	names := slices.Sorted(maps.Keys(envoy))
	for name := range apisx {
		if _, ok := envoy[name]; !ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		switch name {
		case "x-forwarded-proto", "x-forwarded-for", "x-forwarded-host": // nginx and APISIX have their own
			continue
		case "te": // of a single connection: nginx passes none on
			continue
		}
		// A header without a value is as good as none; nginx sends none that a plugin has set to nothing.
		theirs, ours := joined(name, envoy[name]), joined(name, apisx[name])
		if strings.Contains(theirs, envoytest.Unpredictable) && ours != "" {
			continue
		}
		c.check(a, name, theirs, ours)
	}
}

// joined is a list of values in the form that RFC 9110 gives it: lines and lists are the same. Cookies
// have a separator of their own.
func joined(name string, lines []string) string {
	separator := ","
	if name == "cookie" {
		separator = ";"
	}
	var out []string
	for value := range strings.SplitSeq(strings.Join(lines, separator), separator) {
		if value = strings.Trim(value, " \t"); value != "" {
			out = append(out, value)
		}
	}
	return strings.Join(out, ",")
}

func linesOf(headers []envoytest.Header) map[string][]string {
	out := map[string][]string{}
	for _, h := range headers {
		out[h.Name] = append(out[h.Name], h.Value)
	}
	return out
}

const day = 86400.0 // how nginx is told to wait for ever

func (c *comparison) compareTimeouts() {
	e, a := c.envoyDecision, c.apisixDecision
	want := time.Duration(0)
	for _, t := range []time.Duration{e.Timeout, e.Retry.PerTryTimeout} {
		if t > 0 && (want == 0 || t < want) {
			want = t
		}
	}
	timeout := a.Upstream.Timeout
	if a.Route.Timeout != nil {
		timeout = a.Route.Timeout
	}
	// An idle timeout of the route is shorter than nothing.
	if timeout == nil || c.isUpgrade() {
		return
	}
	got := time.Duration(timeout.Read * float64(time.Second)).Round(time.Millisecond)
	if e.IdleTimeout > 0 && (want == 0 || e.IdleTimeout < want) && got == e.IdleTimeout {
		return
	}
	if timeout.Read >= day {
		got = 0
	}
	c.check(aspectTimeout, "", max(want, min(want, time.Millisecond)).Round(time.Millisecond).String(), got.String())
	if retries := a.Upstream.Retries; retries != nil && *retries > int(e.Retry.Count) {
		c.check(aspectRetries, "", strconv.Itoa(int(e.Retry.Count)), strconv.Itoa(*retries))
	}
}

func (c *comparison) isUpgrade() bool {
	return slices.ContainsFunc(c.envoy.Headers, func(h envoytest.Header) bool { return strings.EqualFold(h.Name, "upgrade") })
}
