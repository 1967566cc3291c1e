package translate

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSlowStartGrowsFromTheLeastWeightToAllOfIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := SlowStart{
			Window:     time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "window")),
			Aggression: rapid.Float64Range(0.01, 100).Draw(t, "aggression"),
			Least:      rapid.Float64Range(0, 1).Draw(t, "least"),
		}
		if got := s.Factor(0); got != s.Least {
			t.Errorf("at first %v, want %v", got, s.Least)
		}
		if got := s.Factor(s.Window); got != 1 {
			t.Errorf("after the window %v, want 1", got)
		}
		earlier := time.Duration(rapid.Int64Range(0, int64(s.Window)).Draw(t, "earlier"))
		later := time.Duration(rapid.Int64Range(int64(earlier), int64(s.Window)).Draw(t, "later"))
		if a, b := s.Factor(earlier), s.Factor(later); a > b || a < s.Least || b > 1 {
			t.Errorf("%v at %v, and %v at %v", a, earlier, b, later)
		}
		// Envoy's formula, the other way round: factor^aggression is the part of the window.
		if f := s.Factor(later); f > s.Least && f < 1 {
			if part := float64(later) / float64(s.Window); math.Abs(math.Pow(f, s.Aggression)-part) > 1e-6 {
				t.Errorf("%v at %v of the window with aggression %v", f, part, s.Aggression)
			}
		}
	})
}

func TestSlowStartIsLinearByDefault(t *testing.T) {
	s := SlowStart{Window: 10 * time.Second, Aggression: 1, Least: 0.1}
	for age, want := range map[time.Duration]float64{0: 0.1, 500 * time.Millisecond: 0.1, 4 * time.Second: 0.4, 9 * time.Second: 0.9, time.Minute: 1} {
		if got := s.Factor(age); got != want {
			t.Errorf("after %v: %v, want %v", age, got, want)
		}
	}
}
