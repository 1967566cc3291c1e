package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ending is a lifecycle in a bubble, with traffic that notes when it is told what.
type ending struct {
	*lifecycle
	t           *testing.T
	began       time.Time
	notes       []string
	open        chan struct{} // closed when no connection is open
	inFlight    chan struct{} // closed when no request is in flight
	terminate   context.CancelFunc
	fail        context.CancelFunc
	hurryCalled chan struct{}
}

func (e *ending) note(what string) {
	e.notes = append(e.notes, fmt.Sprintf("%s %s", time.Since(e.began), what))
}

func (e *ending) refuse() { e.note("refuse") }

func (e *ending) idle(ctx context.Context) {
	e.note("wait")
	select {
	case <-e.open:
	case <-ctx.Done():
	}
}

func (e *ending) finish(ctx context.Context, limit time.Duration) {
	e.note("finish")
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-e.inFlight:
	case <-ctx.Done():
	}
}

var configured = LifecycleConfig{DrainTime: 5 * time.Second, MinimumDrain: 3 * time.Second, StopTime: 7 * time.Second}

// at is when something happens, after the start.
type at struct {
	after time.Duration
	what  string
}

func TestHowTheBridgeEnds(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name       string
		exitOnZero bool
		noTraffic  bool
		happens    []at
		want       string // what traffic is told, and the end
	}{
		{name: "a part fails", happens: []at{{s, "fail"}}, want: "1s end"},
		{name: "SIGTERM", happens: []at{{s, "term"}, {7 * s, "none in flight"}}, want: "6s finish, 7s end"},
		{name: "SIGTERM, and requests take long", happens: []at{{s, "term"}}, want: "6s finish, 13s end"},
		{name: "as SIGTERM, on the admin port", happens: []at{{s, "admin"}}, want: "6s finish, 13s end"},
		{name: "SIGTERM without traffic of its own", noTraffic: true, happens: []at{{s, "term"}}, want: "1s end"},
		{name: "quit", happens: []at{{s, "quit"}}, want: "1s end"},
		{name: "quit while draining", happens: []at{{s, "term"}, {2 * s, "quit"}}, want: "2s end"},
		{name: "quit while finishing", happens: []at{{s, "term"}, {8 * s, "quit"}}, want: "6s finish, 8s end"},
		{name: "second signal", happens: []at{{s, "term"}, {2 * s, "hurry"}}, want: "2s end"},
		{name: "a part fails while draining", happens: []at{{s, "term"}, {2 * s, "fail"}}, want: "2s end"},
		{
			name: "native sidecar: drain, later SIGTERM", happens: []at{{s, "drain"}, {time.Hour, "term"}},
			want: "6s refuse, 1h0m0s end",
		},
		{name: "native sidecar that ends soon", happens: []at{{s, "drain"}, {2 * s, "term"}}, want: "2s end"},
		{name: "drain twice, then quit", happens: []at{{s, "drain"}, {2 * s, "drain"}, {9 * s, "quit"}}, want: "6s refuse, 9s end"},
		{name: "drain without traffic of its own", noTraffic: true, happens: []at{{s, "drain"}, {9 * s, "term"}}, want: "9s end"},
		{
			name: "no connections any more", exitOnZero: true, happens: []at{{s, "term"}, {2 * s, "none in flight"}, {time.Hour, "none open"}},
			want: "4s refuse, 4s wait, 1h0m0s finish, 1h0m0s end",
		},
		{
			name: "no connections to begin with", exitOnZero: true, happens: []at{{0, "none open"}, {0, "none in flight"}, {s, "term"}},
			want: "4s refuse, 4s wait, 4s finish, 4s end",
		},
		{
			name: "connections that stay, and a second signal", exitOnZero: true, happens: []at{{s, "term"}, {time.Minute, "hurry"}},
			want: "4s refuse, 4s wait, 1m0s end",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &ending{t: t, began: time.Now(), open: make(chan struct{}), inFlight: make(chan struct{}), hurryCalled: make(chan struct{})}
				config := configured
				config.ExitOnZero, config.Hurry = c.exitOnZero, e.hurryCalled
				e.lifecycle = newLifecycle(config, slog.New(slog.DiscardHandler))
				ctx, terminate := context.WithCancel(t.Context())
				parts, fail := context.WithCancel(t.Context())
				defer fail()
				e.terminate, e.fail = terminate, fail
				done := make(chan struct{})
				go func() {
					defer close(done)
					e.script(c.happens)
				}()
				if err := e.err(); err != nil {
					t.Errorf("not ready at the start: %v", err)
				}
				if c.noTraffic {
					e.run(ctx, parts, nil)
				} else {
					e.run(ctx, parts, e)
				}
				e.note("end")
				if got := strings.Join(e.notes, ", "); got != c.want {
					t.Errorf("%s\nwant %s", got, c.want)
				}
				if err := e.err(); err == nil {
					t.Error("ready in the end")
				}
				<-done
			})
		})
	}
}

// script has things happen.
func (e *ending) script(all []at) {
	slices.SortStableFunc(all, func(a, b at) int { return int(a.after - b.after) })
	for _, next := range all {
		time.Sleep(time.Until(e.began.Add(next.after))) //nolint:forbidigo // the bubble's clock
		switch next.what {
		case "fail":
			e.fail()
		case "term":
			e.terminate()
		case "admin":
			e.terminated.happen()
		case "quit":
			e.quit.happen()
		case "hurry":
			close(e.hurryCalled)
		case "drain":
			e.drained.happen()
		case "none open":
			close(e.open)
		case "none in flight":
			close(e.inFlight)
		}
		if next.what != "none open" && next.what != "none in flight" {
			synctest.Wait()
			if e.err() == nil {
				e.t.Errorf("ready after %q", next.what)
			}
		}
	}
}
