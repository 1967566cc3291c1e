package difftest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"meshbridge/translate/envoytest"
)

// Report counts pairs of decisions.
type Report struct {
	// Pairs is how many requests were given to both sides, Compared those for which both have an
	// answer, and Equal those with the same.
	Pairs, Compared, Equal int
	// Unknown counts requests that Envoy's evaluator has no answer for, by the reason.
	Unknown map[string]int
	// Explained counts differences by the codes that explain them.
	Explained map[string]int
	// Outcomes counts what Envoy does.
	Outcomes map[envoytest.Outcome]int
	// Failures are differences that nothing explains.
	Failures []Failure
}

// Shortest returns one failure of each kind, that with the shortest request: of a chain, and with the
// same aspects.
func (r *Report) Shortest() []Failure {
	best := map[string]Failure{}
	for _, f := range r.Failures {
		key := f.World + " " + f.Chain + " " + f.kind
		if other, ok := best[key]; !ok || len(f.String()) < len(other.String()) {
			best[key] = f
		}
	}
	out := make([]Failure, 0, len(best))
	for _, key := range slices.Sorted(maps.Keys(best)) {
		out = append(out, best[key])
	}
	return out
}

// NewReport returns an empty report.
func NewReport() *Report {
	return &Report{Unknown: map[string]int{}, Explained: map[string]int{}, Outcomes: map[envoytest.Outcome]int{}}
}

// Add adds the counts and failures of another report.
func (r *Report) Add(o *Report) {
	r.Pairs, r.Compared, r.Equal = r.Pairs+o.Pairs, r.Compared+o.Compared, r.Equal+o.Equal
	addCounts(r.Unknown, o.Unknown)
	addCounts(r.Explained, o.Explained)
	addCounts(r.Outcomes, o.Outcomes)
	r.Failures = append(r.Failures, o.Failures...)
}

func addCounts[K comparable](to, from map[K]int) {
	for key, n := range from {
		to[key] += n
	}
}

// String formats the counts.
func (r *Report) String() string {
	explained := 0
	for _, n := range r.Explained {
		explained += n
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d pairs, %d compared, %d equal, %d differ as reported, %d failures", r.Pairs, r.Compared, r.Equal, r.Compared-r.Equal-len(r.Failures), len(r.Failures))
	writeCounts(&b, "outcome", r.Outcomes)
	writeCounts(&b, "explained by", r.Explained)
	writeCounts(&b, "not compared:", r.Unknown)
	return b.String()
}

func writeCounts[K ~string](b *strings.Builder, what string, counts map[K]int) {
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(b, "\n  %8d %s %s", counts[key], what, key)
	}
}

// Failure is a request for which the sides differ without a reason.
type Failure struct {
	World       string
	Chain       string
	Request     envoytest.Request
	Differences []string
	// Envoy and APISIX say what each did.
	Envoy, APISIX string

	kind string // the aspects
}

// String formats what is needed to see the difference.
func (f Failure) String() string {
	return fmt.Sprintf("%s, chain %s: %s %s%s %v draws %+v\n  %s\n  Envoy:  %s\n  APISIX: %s",
		f.World, f.Chain, f.Request.Method, f.Request.Host, f.Request.Target, f.Request.Headers, f.Request.Draws,
		strings.Join(f.Differences, "\n  "), f.Envoy, f.APISIX)
}

// Run gives random requests to both sides, evenly among the chains.
func (w *World) Run(random Random, requests int, report *Report) {
	for i := range requests {
		e := w.entrances[i%len(w.entrances)]
		w.run(e, e.request(random), report)
	}
}

// Repeat gives the request of a failure to both sides again, which may be of another World.
func (w *World) Repeat(f Failure, report *Report) {
	for _, e := range w.entrances {
		if e.chain.Key == f.Chain {
			w.run(e, f.Request, report)
		}
	}
}

// pluginForwardAuth is the plugin that asks about tokens.
const pluginForwardAuth = "forward-auth"

// run gives one request to both sides, and returns what they did.
func (w *World) run(e *entrance, r envoytest.Request, report *Report) *outcome {
	report.Pairs++
	o := &outcome{pair: e.pair(r), world: w, envoyDecision: w.envoy.Evaluate(r)}
	o.apisixDecision = w.apisix.Evaluate(o.apisix)
	report.Outcomes[o.envoyDecision.Outcome]++
	if o.envoyDecision.Outcome == envoytest.Unknown && o.apisixDecision.Status != 403 {
		report.Unknown[strings.Join(o.envoyDecision.Notes, "; ")]++
		return o
	}
	if o.apisixDecision.AnsweredBy == pluginForwardAuth && !w.verifies {
		report.Unknown["nobody verifies tokens"]++
		return o
	}
	report.Compared++
	differences := compare(o)
	if len(differences) == 0 {
		report.Equal++
		return o
	}
	codes, ok := w.explain(o, differences)
	var left []difference
	if !ok {
		codes, left, ok = w.explainReading(o)
	}
	if !ok {
		report.Failures = append(report.Failures, w.failure(o, differences, left))
		return o
	}
	slices.Sort(codes)
	for _, code := range slices.Compact(codes) {
		report.Explained[code]++
	}
	return o
}

// explainReading tells whether the sides differ in how they read the request, and in nothing else.
func (w *World) explainReading(o *outcome) (codes []string, left []difference, ok bool) {
	if !w.reports(codeNormalization) {
		return nil, nil, false
	}
	codes = []string{codeNormalization}
	if refusedByOne(o) || hasLineFeed(o) || hasOddCookies(o) {
		return codes, nil, true
	}
	for _, normal := range normalForms(o.envoy) {
		differences := w.inForm(o, normal)
		others, ok := w.explain(differences.outcome, differences.differences)
		if ok {
			return append(codes, others...), nil, true
		}
		left = differences.differences
	}
	return nil, left, false
}

// inForm compares what Envoy does with a normal form of the request with what APISIX does with the
// request itself, in normal form as well.
func (w *World) inForm(o *outcome, normal envoytest.Request) comparison {
	as := *o
	as.envoy = normal
	as.envoyDecision = w.envoy.Evaluate(normal)
	as.envoyDecision.Path = normalTarget(as.envoyDecision.Path)
	as.envoyDecision.Location = normalLocation(as.envoyDecision.Location)
	as.envoyDecision.Host, as.apisixDecision.Host = normalHost(as.envoyDecision.Host), normalHost(as.apisixDecision.Host)
	as.apisixDecision.URI = normalTarget(as.apisixDecision.URI)
	as.apisixDecision.Location = normalLocation(as.apisixDecision.Location)
	return comparison{&as, compare(&as)}
}

// normalLocation is a location in normal form.
func normalLocation(location string) string {
	if strings.HasPrefix(location, "/") {
		return normalTarget(location)
	}
	scheme, rest, ok := strings.Cut(location, "://")
	if !ok {
		return location
	}
	host, path, _ := strings.Cut(rest, "/")
	return scheme + "://" + normalHost(host) + normalTarget("/"+path)
}

// maxPath is the length up to which APISIX matches all paths.
const maxPath = 6000

// refusedByOne tells whether one side does not take the request at all: it is malformed, or beyond
// what nginx accepts. A wildcard at the beginning of a domain stands for nothing at all to APISIX, which
// no host can tell that is one.
func refusedByOne(o *outcome) bool {
	if o.apisixDecision.AnsweredBy == "nginx" || len(o.envoy.Target) > maxPath {
		return true
	}
	return o.envoyDecision.Outcome == envoytest.Rejected || strings.HasPrefix(o.envoy.Host, ".") || strings.HasPrefix(o.envoy.Host, "-") || strings.LastIndexByte(o.envoy.Host, '[') > 0
}

// hasLineFeed tells whether the path has an encoded line feed, which a dot in an expression does not
// match once it is decoded.
func hasLineFeed(o *outcome) bool {
	return strings.Contains(o.envoy.Target, "%0a") || strings.Contains(o.envoy.Target, "%0A")
}

// failure describes an outcome. left is what the sides differ in for the normal form of the request.
func (w *World) failure(o *outcome, differences, left []difference) Failure {
	f := Failure{World: w.name, Chain: o.entrance.chain.Key, Request: o.envoy}
	for _, d := range differences {
		f.Differences = append(f.Differences, d.String())
		f.kind += " " + string(d.aspect) + " " + d.name
	}
	for _, d := range left {
		f.Differences = append(f.Differences, "in normal form, "+d.String())
	}
	e, a := o.envoyDecision, o.apisixDecision
	f.Envoy = fmt.Sprintf("%s %d, virtual host %q, route %q (%d), cluster %q, host %q, path %q, location %q, notes %v",
		e.Outcome, e.Status, e.VirtualHost, e.Route, e.RouteIndex, e.Cluster, e.Host, e.Path, e.Location, e.Notes)
	name := ""
	if a.Route != nil {
		name = a.Route.Name
	}
	f.APISIX = fmt.Sprintf("%d %s, route %q (%s), upstream %q, host %q, path %q, location %q, notes %v",
		a.Status, a.AnsweredBy, name, a.RouteID, cluster(a.Upstream), a.Host, a.URI, a.Location, a.Notes)
	return f
}
