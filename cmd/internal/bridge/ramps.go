package bridge

import (
	"maps"
	"time"

	"meshbridge/translate"
)

// A ramp is rampSteps steps, but not more than one in leastStep: each is a commit.
const (
	rampSteps = 10
	leastStep = time.Second
)

// ramps gives new endpoints of clusters with slow start their share little by little. It is owned by
// the pipeline. All endpoints of a cluster take their steps at the same time, so that a cluster costs
// one commit a step, however many of its endpoints are new. What was there when the cluster was first
// seen, which includes everything in the first world, is not new: there is nothing to protect it from.
type ramps struct {
	clusters map[string]*ramp
	// inputs are translate.Inputs.Ramps, replaced and never modified.
	inputs map[string]map[string]float64
}

// ramp is the state of one cluster.
type ramp struct {
	slow translate.SlowStart
	// since tells when each endpoint appeared; zero for those that are not new any more.
	since map[string]time.Time
	// factors are as of the last step, or of an endpoint's appearance; replaced and never modified.
	factors map[string]float64
	// next is when the next step is due; zero where no endpoint is new.
	next time.Time
}

func newRamps() *ramps { return &ramps{clusters: map[string]*ramp{}} }

// observe takes over which endpoints there are.
func (r *ramps) observe(now time.Time, all []translate.SlowStart) {
	if len(all) == 0 {
		return
	}
	next := maps.Clone(r.inputs)
	if next == nil {
		next = map[string]map[string]float64{}
	}
	for _, slow := range all {
		if slow.Window == 0 {
			delete(r.clusters, slow.Cluster)
			delete(next, slow.Cluster)
			continue
		}
		next[slow.Cluster] = r.observeCluster(now, slow).factors
	}
	r.inputs = next
}

func (r *ramps) observeCluster(now time.Time, slow translate.SlowStart) *ramp {
	c, known := r.clusters[slow.Cluster]
	if !known {
		c = &ramp{}
		r.clusters[slow.Cluster] = c
	}
	since := make(map[string]time.Time, len(slow.Endpoints))
	factors := make(map[string]float64, len(slow.Endpoints))
	ramping := false
	for _, e := range slow.Endpoints {
		at, old := c.since[e]
		switch {
		case old:
			factors[e] = c.factors[e]
		case known:
			at, factors[e] = now, slow.Factor(0)
		default:
			factors[e] = 1
		}
		since[e] = at
		ramping = ramping || !at.IsZero()
	}
	c.slow, c.since = slow, since
	if !maps.Equal(c.factors, factors) {
		c.factors = factors
	}
	switch {
	case !ramping:
		c.next = time.Time{}
	case c.next.IsZero():
		c.next = now.Add(c.interval())
	}
	return c
}

// interval is the time between two steps.
func (c *ramp) interval() time.Duration { return max(c.slow.Window/rampSteps, leastStep) }

// step takes the cluster's next step.
func (c *ramp) step(now time.Time) {
	c.next = time.Time{}
	factors := make(map[string]float64, len(c.since))
	for e, at := range c.since {
		factors[e] = 1
		switch {
		case at.IsZero():
		case now.Sub(at) >= c.slow.Window:
			c.since[e] = time.Time{}
		default:
			factors[e] = c.slow.Factor(now.Sub(at))
			c.next = now.Add(c.interval())
		}
	}
	c.factors = factors
}

// due returns when a step is due; zero is never.
func (r *ramps) due() time.Time {
	var first time.Time
	for _, c := range r.clusters {
		if !c.next.IsZero() && (first.IsZero() || c.next.Before(first)) {
			first = c.next
		}
	}
	return first
}

// step takes the steps that are due, and tells whether there were any.
func (r *ramps) step(now time.Time) bool {
	var next map[string]map[string]float64
	for name, c := range r.clusters {
		if c.next.IsZero() || now.Before(c.next) {
			continue
		}
		c.step(now)
		if next == nil {
			next = maps.Clone(r.inputs)
		}
		next[name] = c.factors
	}
	if next == nil {
		return false
	}
	r.inputs = next
	return true
}
