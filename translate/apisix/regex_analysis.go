package apisix

import (
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// LiteralPrefix returns the longest literal that every full match of an RE2 expression begins with,
// and whether the expression matches nothing else. It is empty for an invalid expression.
func LiteralPrefix(re2 string) (prefix string, complete bool) {
	re, err := syntax.Parse(re2, syntax.Perl)
	if err != nil {
		return "", false
	}
	return literalPrefix(re)
}

func literalPrefix(re *syntax.Regexp) (prefix string, complete bool) {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpEndText:
		return "", true
	case syntax.OpLiteral:
		fixed := slices.IndexFunc(re.Rune, func(r rune) bool {
			return re.Flags&syntax.FoldCase != 0 && unicode.SimpleFold(r) != r
		})
		if fixed < 0 {
			return string(re.Rune), true
		}
		return string(re.Rune[:fixed]), false
	case syntax.OpCharClass:
		if len(re.Rune) == 2 && re.Rune[0] == re.Rune[1] {
			return string(re.Rune[:1]), true
		}
	case syntax.OpCapture:
		return literalPrefix(re.Sub[0])
	case syntax.OpPlus:
		prefix, _ := literalPrefix(re.Sub[0])
		return prefix, false
	case syntax.OpRepeat:
		if re.Min == 0 {
			return "", false
		}
		prefix, complete := literalPrefix(re.Sub[0])
		if !complete {
			return prefix, false
		}
		return strings.Repeat(prefix, re.Min), re.Min == re.Max
	case syntax.OpConcat:
		var b strings.Builder
		for _, sub := range re.Sub {
			prefix, complete := literalPrefix(sub)
			b.WriteString(prefix)
			if !complete {
				return b.String(), false
			}
		}
		return b.String(), true
	case syntax.OpAlternate:
		prefix, complete = literalPrefix(re.Sub[0])
		for _, sub := range re.Sub[1:] {
			other, all := literalPrefix(sub)
			complete = complete && all && other == prefix
			prefix = commonPrefix(prefix, other)
		}
		return prefix, complete
	default: // what can match different strings, or the empty one
	}
	return "", false
}

// commonPrefix ends at a character, not within one.
func commonPrefix(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	for n > 0 && n < len(a) && !utf8.RuneStart(a[n]) {
		n--
	}
	return a[:n]
}

// Backtracks tells whether PCRE may need time exponential in the length of its input for an RE2
// expression, and why. APISIX then gives up at lua_regex_match_limit and takes it for no match,
// which opens a rule that denies. The check is conservative: an unbounded repetition of what itself
// contains one, or of alternatives that can begin with the same character.
func Backtracks(re2 string) (reason string, ok bool) {
	re, err := syntax.Parse(re2, syntax.Perl)
	if err != nil {
		return "", false
	}
	return backtracks(re)
}

// GivesUp tells whether PCRE may give up on a value of some kilobytes, as clients can send, and why.
// APISIX takes that for no match, which opens a rule that denies. Measured with the limits that
// APISIX sets: repeating a group runs out of PCRE's stack at about 6,000 repetitions, and two
// repetitions of single characters that can share what they match out of steps at some hundred
// characters; one alone copes with anything that fits in a request.
func GivesUp(re2 string) (reason string, ok bool) {
	re, err := syntax.Parse(re2, syntax.Perl)
	if err != nil {
		return "it is no regular expression", true
	}
	if group := longGroup(re); group != nil {
		return "the repetition " + group.String() + " is of more than single characters", true
	}
	if ambiguous(re, nil) > 1 {
		return "several repetitions can match the same characters", true
	}
	return "", false
}

// longGroup returns an unbounded repetition of what is not a single byte; nil without one.
func longGroup(re *syntax.Regexp) *syntax.Regexp {
	if isUnbounded(re) && !isSingleByte(re.Sub[0]) {
		return re
	}
	for _, sub := range re.Sub {
		if group := longGroup(sub); group != nil {
			return group
		}
	}
	return nil
}

func isSingleByte(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return true
	case syntax.OpCharClass:
		return isByteClass(re.Rune)
	case syntax.OpLiteral:
		return len(re.Rune) == 1 && re.Rune[0] < utf8.RuneSelf
	default:
		return false
	}
}

// ambiguous counts the unbounded repetitions on the longest way through re whose end is not decided
// by the next character, follow being what comes behind re: the number of places at which PCRE may
// have to try again.
func ambiguous(re *syntax.Regexp, follow []*syntax.Regexp) int {
	switch re.Op {
	case syntax.OpConcat:
		n := 0
		for i, sub := range re.Sub {
			n += ambiguous(sub, slices.Concat(re.Sub[i+1:], follow))
		}
		return n
	case syntax.OpAlternate:
		n := 0
		for _, sub := range re.Sub {
			n = max(n, ambiguous(sub, follow))
		}
		return n
	case syntax.OpCapture, syntax.OpQuest:
		return ambiguous(re.Sub[0], follow)
	case syntax.OpRepeat:
		if !isUnbounded(re) {
			return ambiguous(re.Sub[0], follow) * max(re.Max, 1)
		}
	default:
	}
	if isUnbounded(re) && !endsBefore(re.Sub[0], follow) {
		return 1
	}
	return 0
}

// endsBefore tells whether a repetition of a single character can only end where follow begins: the
// next character is none that it could have gone on with, or there is no next one.
func endsBefore(repeated *syntax.Regexp, follow []*syntax.Regexp) bool {
	for _, next := range follow {
		switch next.Op {
		case syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpEndText, syntax.OpQuest, syntax.OpStar:
			if next.Op == syntax.OpQuest || next.Op == syntax.OpStar { // may be there or not
				first := firstRunes(next.Sub[0])
				if own := firstRunes(repeated); first == nil || own == nil || overlap(own, first) {
					return false
				}
			}
			continue
		default:
		}
		first, own := firstRunes(next), firstRunes(repeated)
		return first != nil && own != nil && !overlap(own, first)
	}
	return true
}

// longRepeat is how many repetitions count as unbounded.
const longRepeat = 16

func isUnbounded(re *syntax.Regexp) bool {
	return re.Op == syntax.OpStar || re.Op == syntax.OpPlus ||
		re.Op == syntax.OpRepeat && (re.Max < 0 || re.Max > longRepeat)
}

func backtracks(re *syntax.Regexp) (string, bool) {
	if isUnbounded(re) {
		body := re.Sub[0]
		if contains(body, isUnbounded) {
			return "the unbounded repetition " + re.String() + " contains another one", true
		}
		if contains(body, hasOverlappingAlternatives) {
			return "the unbounded repetition " + re.String() + " has alternatives that may begin alike", true
		}
	}
	for _, sub := range re.Sub {
		if reason, ok := backtracks(sub); ok {
			return reason, true
		}
	}
	return "", false
}

func contains(re *syntax.Regexp, what func(*syntax.Regexp) bool) bool {
	if what(re) {
		return true
	}
	for _, sub := range re.Sub {
		if contains(sub, what) {
			return true
		}
	}
	return false
}

// hasOverlappingAlternatives counts an optional element as a choice too: the parser turns (?:a|ab)
// into ab?.
func hasOverlappingAlternatives(re *syntax.Regexp) bool {
	if re.Op == syntax.OpQuest {
		return true
	}
	if re.Op != syntax.OpAlternate {
		return false
	}
	var seen []rune
	for _, sub := range re.Sub {
		first := firstRunes(sub)
		if first == nil || overlap(seen, first) {
			return true
		}
		seen = append(seen, first...)
	}
	return false
}

// firstRunes returns ranges of the characters that a match can begin with; nil for any.
func firstRunes(re *syntax.Regexp) []rune {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return []rune{re.Rune[0], re.Rune[0]}
		}
	case syntax.OpCharClass:
		return re.Rune
	case syntax.OpCapture, syntax.OpConcat, syntax.OpPlus:
		return firstRunes(re.Sub[0])
	default: // anything, or nothing
	}
	return nil
}

func overlap(a, b []rune) bool {
	for i := 0; i < len(a); i += 2 {
		for j := 0; j < len(b); j += 2 {
			if a[i] <= b[j+1] && b[j] <= a[i+1] {
				return true
			}
		}
	}
	return false
}
