package apisix

import (
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestHexLessExamples(t *testing.T) {
	tests := []struct {
		numerator, denominator uint64
		window                 int
		want                   string
	}{
		{25, 100, WindowWeight, "^[0-3]"},
		{50, 100, WindowMatch, "^.{6}[0-7]"},
		{100, 100, WindowMirror, "^.{24}"},
		{200, 100, WindowWeight, "^"},
		{0, 100, WindowWeight, `\z.`},
		{5, 0, WindowWeight, `\z.`},
		{1, 1 << 24, WindowAbort, "^.{18}000000"},
		{0xabcdef, 1 << 24, WindowDelay, "^.{12}(?:[0-9]|a[0-9a]|ab[0-9a-b]|abc[0-9a-c]|abcd[0-9a-d]|abcde[0-9a-e])"},
	}
	for _, test := range tests {
		if got := HexLess(test.numerator, test.denominator, test.window); got != test.want {
			t.Errorf("HexLess(%d, %d, %d) = %q, want %q", test.numerator, test.denominator, test.window, got, test.want)
		}
	}
}

// requestID returns a request id with the digits of one window, and others that no test of another
// window should read.
func requestID(digits uint64, window int) string {
	return strings.Repeat("f", 6*window) + fmt.Sprintf("%06x", digits) + strings.Repeat("0", 26-6*window)
}

func TestHexLessIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		denominator := rapid.Uint64Range(1, 1<<40).Draw(t, "denominator")
		numerator := rapid.Uint64Range(0, denominator).Draw(t, "numerator")
		window := rapid.IntRange(WindowWeight, WindowMirror).Draw(t, "window")
		re, err := compilePCRE(HexLess(numerator, denominator, window), false)
		if err != nil {
			t.Fatal(err)
		}
		hi, lo := bits.Mul64(numerator, 1<<24)
		lo, carry := bits.Add64(lo, denominator/2, 0)
		limit, _ := bits.Div64(hi+carry, lo, denominator)
		near := uint64(rapid.IntRange(-3, 3).Draw(t, "near"))
		for _, digits := range []uint64{limit - 1, limit, limit + near, 0, 1<<24 - 1, rapid.Uint64Range(0, 1<<24-1).Draw(t, "digits")} {
			if digits < 1<<24 && re.match(requestID(digits, window)) != (digits < limit) {
				t.Fatalf("%d of %d in window %d: %s wrongly decides %06x", numerator, denominator, window, re.re, digits)
			}
		}
	})
}

func TestWeightSlicesDivideRequestsInProportion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.OneOf(rapid.Uint32Range(0, 100), rapid.Uint32()), 1, 30).Draw(t, "weights")
		var total float64
		for _, w := range weights {
			total += float64(w)
		}
		const samples = 512
		counts := make([]int, len(weights))
		slices := WeightSlices(weights)
		regexes := make([]*pcre, len(slices))
		for i, slice := range slices {
			re, err := compilePCRE(slice, false)
			if err != nil {
				t.Fatal(err)
			}
			regexes[i] = re
		}
		for n := range uint64(samples) {
			for i, re := range regexes {
				if re.match(requestID(n*(1<<24)/samples, WindowWeight)) {
					counts[i]++
					break
				}
			}
		}
		for i, w := range weights {
			want := 0.0
			if total > 0 {
				want = float64(w) / total * samples
			}
			if diff := float64(counts[i]) - want; diff > 1.01 || diff < -1.01 || w == 0 && counts[i] > 0 {
				t.Fatalf("weights %v: branch %d got %d of %d", weights, i, counts[i], samples)
			}
		}
	})
}
