package xds

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// scripted is a stream that answers with responses until its time is up.
type scripted struct {
	responses []response
	until     <-chan time.Time
	err       error
}

func (s *scripted) send(request) error { return nil }

func (s *scripted) recv() (response, error) {
	if len(s.responses) > 0 {
		r := s.responses[0]
		s.responses = s.responses[1:]
		return r, nil
	}
	if s.until != nil {
		<-s.until
	}
	return response{}, s.err
}

// attempts runs a client for a virtual time on streams that connect makes, and returns the time of
// each attempt since the start.
func attempts(t *testing.T, lasts time.Duration, connect func(n int) (variant, error)) []time.Duration {
	t.Helper()
	client, err := New(Config{Address: "istiod:15010", Node: &corepb.Node{Id: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var at []time.Duration
	client.connect = func(context.Context) (variant, io.Closer, error) {
		at = append(at, time.Since(start))
		stream, err := connect(len(at) - 1)
		return stream, io.NopCloser(nil), err
	}
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	if err := client.Run(ctx, func(Update) {}); err != nil {
		t.Errorf("Run: %v", err)
	}
	return at
}

func TestAttemptsBackOffToTheMaximum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := attempts(t, 10*time.Minute, func(int) (variant, error) { return nil, errors.New("refused") })
		if at[0] != 0 {
			t.Errorf("the first attempt waited %s", at[0])
		}
		expected := 250 * time.Millisecond
		for i := 1; i < len(at); i++ {
			wait := at[i] - at[i-1]
			if wait < expected/2 || wait > expected {
				t.Errorf("wait %d is %s, want between %s and %s", i, wait, expected/2, expected)
			}
			expected = min(2*expected, 30*time.Second)
		}
		if len(at) < 20 {
			t.Errorf("gave up after %d attempts", len(at))
		}
	})
}

// Amesh opened some seven thousand streams in fifteen seconds, and apisix-mesh-agent spun on the
// stream that had ended.
func TestStreamsThatEndAtOnceMakeNoStorm(t *testing.T) {
	answer := response{typeURL: ClusterType, nonce: "n"}
	for name, stream := range map[string]func() *scripted{
		"clean end":           func() *scripted { return &scripted{err: io.EOF} },
		"answered, clean end": func() *scripted { return &scripted{responses: []response{answer}, err: io.EOF} },
		"answered, lost":      func() *scripted { return &scripted{responses: []response{answer}, err: errors.New("lost")} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at := attempts(t, 15*time.Second, func(int) (variant, error) { return stream(), nil })
				if len(at) > 8 {
					t.Errorf("%d streams in 15 s", len(at))
				}
			})
		})
	}
}

func TestAHealthyStreamResetsTheBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const failing = 10
		at := attempts(t, time.Hour, func(n int) (variant, error) {
			if n < failing {
				return nil, errors.New("refused")
			}
			return &scripted{
				responses: []response{{typeURL: ClusterType, nonce: "n"}},
				until:     time.NewTimer(time.Minute).C,
				err:       io.EOF,
			}, nil
		})
		for i := failing + 1; i < len(at); i++ {
			if wait := at[i] - at[i-1] - time.Minute; wait <= 0 || wait > 250*time.Millisecond {
				t.Errorf("wait %s after a healthy stream", wait)
			}
		}
		if len(at) < failing+20 {
			t.Errorf("%d streams in an hour", len(at))
		}
	})
}
