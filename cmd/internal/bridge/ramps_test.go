package bridge

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"meshbridge/translate/apisix"
	"meshbridge/xds/xdstest"
)

// slowBubble is bubble with a mesh in which service 1 has a slow start of 20 s.
func slowBubble(t *testing.T, test func(t *testing.T, p *pipelineTest)) {
	t.Helper()
	bubble(t, 3, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		c := xdstest.Cluster(1)
		c.LbConfig = &clusterpb.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterpb.Cluster_LeastRequestLbConfig{
			SlowStartConfig: &clusterpb.Cluster_SlowStartConfig{SlowStartWindow: durationpb.New(20 * time.Second)},
		}}
		p.set(c)
		test(t, p)
	})
}

// weights returns the weights by host of the only upstream in an event of a revision.
func weights(t *testing.T, revision []string) map[string]int {
	t.Helper()
	if len(revision) != 1 || !strings.Contains(revision[0], " /apisix/upstreams/") {
		t.Fatalf("revision %q, want one put of an upstream", revision)
	}
	_, value, _ := strings.Cut(revision[0], "{")
	var u apisix.Upstream
	if err := json.Unmarshal([]byte("{"+value), &u); err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for _, n := range u.Nodes {
		all[n.Host] = n.Weight
	}
	return all
}

func TestANewEndpointGetsItsShareInAHandfulOfCommits(t *testing.T) {
	slowBubble(t, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		if got := p.pass(time.Minute); got != nil {
			t.Fatalf("what is there at the start is not new, but %q was committed", got)
		}
		p.deliver(p.set(withEndpoint(1, 2)), nil)
		got := p.next()
		if len(got) != 1 {
			t.Fatalf("%d revisions for a new endpoint", len(got))
		}
		if w := weights(t, got[0]); w["10.0.1.1"] != 100 || w["10.0.1.2"] != 10 {
			t.Errorf("at first: %v, want a tenth for the new endpoint", w)
		}
		steps := p.pass(20 * time.Second)
		if len(steps) > rampSteps {
			t.Errorf("%d commits, want at most %d", len(steps), rampSteps)
		}
		last := 10
		for i, revision := range steps {
			w := weights(t, revision)
			share := w["10.0.1.2"] * 100 / w["10.0.1.1"]
			if share <= last {
				t.Errorf("step %d: %d %% after %d %%", i, share, last)
			}
			last = share
		}
		if last != 100 {
			t.Errorf("in the end: %d %%", last)
		}
		if got := p.pass(time.Hour); got != nil {
			t.Errorf("after the window: %q", got)
		}
	})
}

func TestEndpointsOfAClusterTakeTheirStepsTogether(t *testing.T) {
	slowBubble(t, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		commits := 0
		for count := 2; count <= 6; count++ {
			p.deliver(p.set(withEndpoint(1, count)), nil)
			commits += len(p.pass(700 * time.Millisecond))
		}
		commits += len(p.pass(time.Minute))
		// Five arrivals, and a step each 2 s from the first arrival to the end of the last window.
		if most := 5 + 12; commits > most {
			t.Errorf("%d commits for five endpoints in a row, want at most %d", commits, most)
		}
	})
}

func TestAnEndpointThatComesBackIsNew(t *testing.T) {
	slowBubble(t, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.set(withEndpoint(1, 2))
		p.start()
		p.deliver(p.set(withEndpoint(1, 1)), nil)
		p.deliver(p.set(withEndpoint(1, 2)), nil)
		got := p.next()
		if w := weights(t, got[len(got)-1]); w["10.0.1.2"] != 10 {
			t.Errorf("weights %v", w)
		}
		p.deliver(p.set(withEndpoint(1, 1)), nil) // gone in the middle of its ramp
		p.next()
		if got := p.pass(time.Hour); got != nil {
			t.Errorf("committed %q for an endpoint that is gone", got)
		}
	})
}

func TestOtherChangesTakeNoSteps(t *testing.T) {
	slowBubble(t, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		p.deliver(p.set(withEndpoint(1, 2)), nil)
		p.pass(3 * time.Second) // between two steps
		p.deliver(p.set(withEndpoint(2, 2)), nil)
		if got := p.next(); len(got) != 1 || len(got[0]) != 1 || !strings.Contains(got[0][0], "10.0.2.2") {
			t.Errorf("committed %q, want the other service's upstream alone", got)
		}
	})
}
