package apisix

import (
	"math/bits"
	"strconv"
	"strings"
)

// Digits of nginx's $request_id, 32 random hexadecimal digits that are fixed for a request, decide
// random choices. Each choice reads a window of its own, so that choices are independent.
const (
	// WindowWeight decides between weighted clusters.
	WindowWeight = iota
	// WindowMatch decides whether a route with a runtime fraction matches.
	WindowMatch
	// WindowDelay decides about an injected delay.
	WindowDelay
	// WindowAbort decides about an injected abort.
	WindowAbort
	// WindowMirror decides about mirroring.
	WindowMirror
)

const (
	windowDigits = 6
	windowSize   = 1 << (4 * windowDigits)
	// neverMatches is a PCRE, and an RE2, that matches nothing.
	neverMatches = `\z.`
)

// HexLess returns a PCRE for $request_id that matches in numerator of denominator cases, to the
// nearest 16⁻⁶: it accepts the six digits of the window that are less than the fraction of 16⁶. A
// fraction of 0 matches nothing, one of 1 or more everything. window is 0 to 4. A denominator of 0
// is a fraction of 0.
func HexLess(numerator, denominator uint64, window int) string {
	return hexBelow(threshold(numerator, denominator), window)
}

// HexWithin returns a condition on $request_id that holds in (numerator of denominator) cases; it
// is the condition form of [HexLess].
func HexWithin(numerator, denominator uint64, window int) Cond {
	return Match("request_id", HexLess(numerator, denominator, window))
}

// WeightSlices returns one PCRE for $request_id per weight, to be tried in this order: the first
// that matches is chosen in proportion to the weights. Slices are cumulative, the last one with a
// weight matches everything, and one without a weight nothing.
func WeightSlices(weights []uint32) []string {
	var total, sum uint64
	last := -1
	for i, w := range weights {
		total += uint64(w)
		if w > 0 {
			last = i
		}
	}
	slices := make([]string, len(weights))
	for i, w := range weights {
		sum += uint64(w)
		switch {
		case w == 0:
			slices[i] = neverMatches
		case i == last:
			slices[i] = hexBelow(windowSize, WindowWeight)
		default:
			slices[i] = HexLess(sum, total, WindowWeight)
		}
	}
	return slices
}

// threshold returns round(numerator/denominator · 16⁶), at most 16⁶.
func threshold(numerator, denominator uint64) uint64 {
	if denominator == 0 {
		return 0
	}
	if numerator >= denominator {
		return windowSize
	}
	hi, lo := bits.Mul64(numerator, windowSize)
	lo, carry := bits.Add64(lo, denominator/2, 0)
	quotient, _ := bits.Div64(hi+carry, lo, denominator) // hi < denominator, as numerator is
	return quotient
}

// hexBelow accepts the digits that are smaller in a position after being equal in all before: one
// alternative per digit of limit that is not zero.
func hexBelow(limit uint64, window int) string {
	prefix := "^"
	if window > 0 {
		prefix += ".{" + strconv.Itoa(windowDigits*window) + "}"
	}
	switch {
	case limit == 0:
		return neverMatches
	case limit >= windowSize:
		return prefix
	}
	digits := strconv.FormatUint(limit+windowSize, 16)[1:] // six digits, zero-padded
	var alternatives []string
	for i := range windowDigits {
		if digits[i] != '0' {
			alternatives = append(alternatives, digits[:i]+digitBelow(digits[i]))
		}
	}
	if len(alternatives) == 1 {
		return prefix + alternatives[0]
	}
	return prefix + "(?:" + strings.Join(alternatives, "|") + ")"
}

// digitBelow returns a class of the hexadecimal digits less than d, which is not '0'.
func digitBelow(d byte) string {
	switch {
	case d == '1':
		return "0"
	case d <= '9':
		return "[0-" + string(d-1) + "]"
	case d == 'a':
		return "[0-9]"
	case d == 'b':
		return "[0-9a]"
	}
	return "[0-9a-" + string(d-1) + "]"
}
