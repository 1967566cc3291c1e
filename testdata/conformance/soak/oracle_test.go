package soak

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// configured is a mesh in which h0 leads to s0 and s1, and an hour later to s1 alone. There is no h9.
func configured(t *testing.T) (*mesh, *side) {
	t.Helper()
	m := &mesh{dir: t.TempDir()}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(m.setPool(0, pool{members: []int{0}}))
	must(m.setPool(1, pool{members: []int{1}}))
	must(m.setSite(9, site{}))
	must(m.setSite(0, site{generation: 1, rules: []rule{{prefix: "/a", to: []int{1}, weights: []int{100}}, {to: []int{0}, weights: []int{100}}}}))
	time.Sleep(time.Hour) // of the bubble
	must(m.setSite(0, site{generation: 2, rules: []rule{{to: []int{1}, weights: []int{100}}}}))
	return m, &side{name: "test", current: newHealth(), path: newHealth(), old: newHealth()}
}

func TestOracle(t *testing.T) {
	ok := func(stamp, backend string) answer {
		return answer{status: http.StatusOK, stamp: stamp, backend: backend}
	}
	for name, test := range map[string]struct {
		late    time.Duration // after the last change
		disturb func(s *side)
		request request
		answer  answer
		wrong   string
	}{
		"what is configured":                  {late: time.Hour, answer: ok("h0/2/0", "s1-b1")},
		"what was configured a moment ago":    {late: time.Second, answer: ok("h0/1/1", "s0-b0")},
		"what was configured long ago":        {late: time.Hour, answer: ok("h0/1/1", "s0-b0"), wrong: "may be in effect"},
		"a rule that comes later":             {late: time.Second, request: request{path: "/a"}, answer: ok("h0/1/1", "s0-b0"), wrong: "rule 0 comes first"},
		"the route of another host":           {late: time.Hour, answer: ok("h1/2/0", "s1-b1"), wrong: "may be in effect"},
		"a backend that is no endpoint":       {late: time.Hour, answer: ok("h0/2/0", "s1-b2"), wrong: "answered by backend"},
		"a backend of another service":        {late: time.Hour, answer: ok("h0/2/0", "s0-b0"), wrong: "answered by backend"},
		"404 of a host that exists":           {late: time.Hour, answer: answer{status: http.StatusNotFound}, wrong: "the host exists"},
		"404 of a host that does not":         {late: time.Hour, request: request{host: 9}, answer: answer{status: http.StatusNotFound}},
		"an error":                            {late: time.Hour, answer: answer{err: errors.New("refused")}, wrong: "nothing is away"},
		"503":                                 {late: time.Hour, answer: answer{status: http.StatusServiceUnavailable}, wrong: "nothing is away"},
		"an error while something is away":    {late: time.Hour, disturb: func(s *side) { s.path.impair("x") }, answer: answer{err: errors.New("refused")}},
		"old configuration during an outage":  {late: time.Hour, disturb: func(s *side) { s.current.impair("x") }, answer: ok("h0/2/0", "s1-b1")},
		"older than the outage":               {late: time.Hour, disturb: func(s *side) { s.current.impair("x") }, answer: ok("h0/1/1", "s0-b0"), wrong: "may be in effect"},
		"known to be in effect, a moment ago": {late: time.Second, disturb: func(s *side) { s.current.settle() }, answer: ok("h0/1/1", "s0-b0"), wrong: "may be in effect"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, s := configured(t)
				time.Sleep(test.late)
				if test.disturb != nil {
					test.disturb(s)
					time.Sleep(time.Millisecond)
				}
				a := test.answer
				a.began, a.ended = time.Now(), time.Now().Add(time.Millisecond)
				got := m.judge(s, test.request, a)
				if test.wrong == "" && got != "" || !strings.Contains(got, test.wrong) {
					t.Errorf("the verdict is %q, want one with %q", got, test.wrong)
				}
			})
		})
	}
}

func TestConfigurationThatIsLateIsForgivenUntilItHadTimeToArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHealth()
		start := time.Now()
		at := func() time.Duration { return h.settled(time.Now(), 10*time.Second).Sub(start) }
		time.Sleep(time.Minute)
		if got := at(); got != 50*time.Second {
			t.Errorf("in order: settled at %v", got)
		}
		h.impair("x")
		time.Sleep(time.Minute)
		if got := at(); got != 50*time.Second {
			t.Errorf("in disorder: settled at %v", got)
		}
		h.heal("x")
		time.Sleep(9 * time.Second)
		h.impair("y") // too soon for anything to have arrived
		time.Sleep(time.Second)
		h.heal("y")
		time.Sleep(9 * time.Second)
		if got := at(); got != 50*time.Second {
			t.Errorf("before it is in order for long enough: settled at %v", got)
		}
		time.Sleep(2 * time.Second)
		if got, want := at(), time.Since(start)-10*time.Second; got != want {
			t.Errorf("in order for long enough: settled at %v, want %v", got, want)
		}
	})
}

// A bridge that puts another content into a revision, or goes back, is found out.
func TestObserverFindsRevisionsThatMislead(t *testing.T) {
	answers := []string{
		`{"header":{"revision":"7"},"kvs":[{"key":"L2E=","value":"MQ==","mod_revision":"5"}]}`,
		`{"header":{"revision":"8"},"kvs":[{"key":"L2E=","value":"Mg==","mod_revision":"5"}]}`,
		`{"header":{"revision":"6"},"kvs":[{"key":"L2E=","value":"Mg==","mod_revision":"5"}]}`,
		`{"header":{"revision":"9"}}`,
	}
	line := newTimeline(io.Discard)
	o := newObserver("test", serveAnswers(t, answers), line)
	for range answers {
		_ = o.read(context.Background())
	}
	report := line.report()
	for _, want := range []string{"had another content at revision 5", "revision 6 after 8", errEmpty.Error()} {
		if !strings.Contains(report, want) {
			t.Errorf("no %q in\n%s", want, report)
		}
	}
	if n := line.failed(); n != 3 {
		t.Errorf("%d faults, want 3:\n%s", n, report)
	}
}

// serveAnswers gives one answer after the other.
func serveAnswers(t *testing.T, answers []string) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, answers[0])
		answers = answers[1:]
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
