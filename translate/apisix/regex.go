package apisix

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Envoy matches with RE2 over UTF-8 characters, APISIX with PCRE2 over bytes (no UTF mode). The
// translation parses RE2 and prints PCRE that accepts the same strings:
//
//   - anchors become \A and \z, because PCRE's $ also matches before a final newline;
//   - characters and ranges beyond ASCII become their UTF-8 byte sequences;
//   - . and negated classes stay single bytes, which differs only where the number of characters
//     beyond ASCII is counted, as in "^.{3}$".

// maxByteSequences bounds the alternatives that a class of characters beyond ASCII expands to.
const maxByteSequences = 64

// ErrRegexNotPortable is the error of an RE2 expression that has no PCRE form.
var ErrRegexNotPortable = errors.New("regular expression has no PCRE form")

// QuoteRegex returns a PCRE, and an RE2, that matches exactly s. It escapes single characters
// rather than using \Q…\E, which would end at a \E within s.
func QuoteRegex(s string) string { return regexp.QuoteMeta(s) }

// RegexToPCRE translates an RE2 expression to an equivalent, unanchored PCRE. Captures keep their
// numbers; names are dropped. The error says what is wrong with the expression, or wraps
// [ErrRegexNotPortable].
func RegexToPCRE(re2 string) (string, error) {
	re, err := syntax.Parse(re2, syntax.Perl)
	if err != nil {
		return "", fmt.Errorf("regular expression %q: %w", re2, err)
	}
	var p pcrePrinter
	p.print(re)
	if p.err != nil {
		return "", fmt.Errorf("regular expression %q: %w", re2, p.err)
	}
	return p.b.String(), nil
}

// FullMatchRegex is [RegexToPCRE] with the expression required to match a whole string, as Envoy's
// safe_regex matchers do.
func FullMatchRegex(re2 string) (string, error) {
	pcre, err := RegexToPCRE(re2)
	if err != nil {
		return "", err
	}
	return `\A(?:` + pcre + `)\z`, nil
}

type pcrePrinter struct {
	b   strings.Builder
	err error
}

func (p *pcrePrinter) print(re *syntax.Regexp) {
	switch re.Op {
	case syntax.OpNoMatch:
		p.b.WriteString(neverMatches)
	case syntax.OpEmptyMatch:
		p.b.WriteString("(?:)")
	case syntax.OpLiteral:
		p.literal(re)
	case syntax.OpCharClass:
		p.class(re.Rune)
	case syntax.OpAnyCharNotNL:
		p.b.WriteString(`[^\n]`)
	case syntax.OpAnyChar:
		p.b.WriteString(`[\x00-\xff]`) // (?s:.) is a group, which exhausts PCRE's stack when repeated
	case syntax.OpBeginLine:
		p.b.WriteString("(?m:^)")
	case syntax.OpEndLine:
		p.b.WriteString(`(?=\n|\z)`)
	case syntax.OpBeginText:
		p.b.WriteString(`\A`)
	case syntax.OpEndText:
		p.b.WriteString(`\z`)
	case syntax.OpWordBoundary:
		p.b.WriteString(`\b`)
	case syntax.OpNoWordBoundary:
		p.b.WriteString(`\B`)
	case syntax.OpCapture:
		p.b.WriteByte('(')
		p.print(re.Sub[0])
		p.b.WriteByte(')')
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		p.repeat(re)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if sub.Op == syntax.OpAlternate {
				p.group(sub)
				continue
			}
			p.print(sub)
		}
	case syntax.OpAlternate:
		for i, sub := range re.Sub {
			if i > 0 {
				p.b.WriteByte('|')
			}
			p.print(sub)
		}
	default:
		p.fail("operator %v", re.Op)
	}
}

func (p *pcrePrinter) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: "+format, append([]any{ErrRegexNotPortable}, args...)...)
	}
}

func (p *pcrePrinter) group(re *syntax.Regexp) {
	p.b.WriteString("(?:")
	p.print(re)
	p.b.WriteByte(')')
}

// repeat groups whatever it repeats unless that is a single byte, class or group: a quantifier
// after a quantifier would be possessive or lazy in PCRE.
func (p *pcrePrinter) repeat(re *syntax.Regexp) {
	switch sub := re.Sub[0]; {
	case sub.Op == syntax.OpCapture, sub.Op == syntax.OpAnyChar, sub.Op == syntax.OpAnyCharNotNL,
		sub.Op == syntax.OpCharClass && isByteClass(sub.Rune),
		sub.Op == syntax.OpLiteral && len(sub.Rune) == 1 && sub.Rune[0] < utf8.RuneSelf && sub.Flags&syntax.FoldCase == 0:
		p.print(sub)
	default:
		p.group(sub)
	}
	switch re.Op {
	case syntax.OpStar:
		p.b.WriteByte('*')
	case syntax.OpPlus:
		p.b.WriteByte('+')
	case syntax.OpQuest:
		p.b.WriteByte('?')
	default:
		p.b.WriteString("{" + strconv.Itoa(re.Min))
		if re.Max != re.Min {
			p.b.WriteByte(',')
			if re.Max >= 0 {
				p.b.WriteString(strconv.Itoa(re.Max))
			}
		}
		p.b.WriteByte('}')
	}
	if re.Flags&syntax.NonGreedy != 0 {
		p.b.WriteByte('?')
	}
}

func (p *pcrePrinter) literal(re *syntax.Regexp) {
	if re.Flags&syntax.FoldCase == 0 {
		p.b.WriteString(QuoteRegex(string(re.Rune)))
		return
	}
	for _, r := range re.Rune {
		variants := []rune{r}
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			variants = append(variants, f)
		}
		if len(variants) == 1 {
			p.b.WriteString(QuoteRegex(string(r)))
			continue
		}
		slices.Sort(variants)
		ranges := make([]rune, 0, 2*len(variants))
		for _, v := range variants {
			ranges = append(ranges, v, v)
		}
		p.class(ranges)
	}
}

// class prints sorted ranges of characters: pairs of first and last.
func (p *pcrePrinter) class(ranges []rune) {
	if len(ranges) == 0 {
		p.b.WriteString("(?:" + neverMatches + ")")
		return
	}
	ascii, rest := splitASCII(ranges)
	switch {
	case isByteClass(ranges) && len(rest) > 0: // a negated class
		p.b.WriteByte('[')
		if excluded := complementASCII(ascii); len(excluded) > 0 {
			p.b.WriteByte('^')
			p.asciiRanges(excluded)
		} else {
			p.b.WriteString(`\x00-\xff`)
		}
		p.b.WriteByte(']')
	case len(rest) == 0:
		p.b.WriteByte('[')
		p.asciiRanges(ascii)
		p.b.WriteByte(']')
	default:
		p.unicodeClass(ascii, rest)
	}
}

// isByteClass tells whether a class is printed as one class of bytes: it has either no or all
// characters beyond ASCII.
func isByteClass(ranges []rune) bool {
	_, rest := splitASCII(ranges)
	return len(ranges) > 0 && (len(rest) == 0 || len(rest) == 2 && rest[0] == utf8.RuneSelf && rest[1] == unicode.MaxRune)
}

func (p *pcrePrinter) unicodeClass(ascii, rest []rune) {
	var sequences []byteSequence
	for i := 0; i < len(rest); i += 2 {
		sequences = appendByteSequences(sequences, rest[i], rest[i+1])
	}
	if len(sequences) > maxByteSequences {
		p.fail("a class of many characters beyond ASCII")
		return
	}
	p.b.WriteString("(?:")
	if len(ascii) > 0 {
		p.b.WriteByte('[')
		p.asciiRanges(ascii)
		p.b.WriteString("]|")
	}
	for i, sequence := range sequences {
		if i > 0 {
			p.b.WriteByte('|')
		}
		for _, r := range sequence {
			if r.lo == r.hi {
				fmt.Fprintf(&p.b, `\x%02x`, r.lo)
			} else {
				fmt.Fprintf(&p.b, `[\x%02x-\x%02x]`, r.lo, r.hi)
			}
		}
	}
	p.b.WriteByte(')')
}

func splitASCII(ranges []rune) (ascii, rest []rune) {
	for i := 0; i < len(ranges); i += 2 {
		lo, hi := ranges[i], ranges[i+1]
		if lo < utf8.RuneSelf {
			ascii = append(ascii, lo, min(hi, utf8.RuneSelf-1))
		}
		if hi >= utf8.RuneSelf {
			rest = append(rest, max(lo, utf8.RuneSelf), hi)
		}
	}
	return ascii, rest
}

func complementASCII(ranges []rune) []rune {
	var out []rune
	next := rune(0)
	for i := 0; i < len(ranges); i += 2 {
		if ranges[i] > next {
			out = append(out, next, ranges[i]-1)
		}
		next = ranges[i+1] + 1
	}
	if next < utf8.RuneSelf {
		out = append(out, next, utf8.RuneSelf-1)
	}
	return out
}

func (p *pcrePrinter) asciiRanges(ranges []rune) {
	for i := 0; i < len(ranges); i += 2 {
		lo, hi := ranges[i], ranges[i+1]
		p.classByte(lo)
		if hi > lo {
			if hi > lo+1 {
				p.b.WriteByte('-')
			}
			p.classByte(hi)
		}
	}
}

func (p *pcrePrinter) classByte(r rune) {
	switch {
	case r == '\n':
		p.b.WriteString(`\n`)
	case r < ' ' || r == 0x7f:
		fmt.Fprintf(&p.b, `\x%02x`, r)
	case strings.ContainsRune(`\[]^-`, r):
		p.b.WriteByte('\\')
		p.b.WriteRune(r)
	default:
		p.b.WriteRune(r)
	}
}

// byteRange is a range of one byte of a UTF-8 sequence.
type byteRange struct{ lo, hi byte }

// byteSequence is the set of UTF-8 encodings whose bytes are each within a range.
type byteSequence []byteRange

// appendByteSequences appends sequences that together are exactly the encodings of lo to hi, which
// are beyond ASCII. A range is split until its encodings have one length and only trailing bytes
// that vary over their whole range.
func appendByteSequences(out []byteSequence, lo, hi rune) []byteSequence {
	const surrogateMin, surrogateMax = 0xd800, 0xdfff
	if lo <= surrogateMax && hi >= surrogateMin { // surrogates have no encoding
		if lo < surrogateMin {
			out = appendByteSequences(out, lo, surrogateMin-1)
		}
		if hi > surrogateMax {
			out = appendByteSequences(out, surrogateMax+1, hi)
		}
		return out
	}
	for _, last := range []rune{0x7ff, 0xffff} { // the last of two and of three bytes
		if lo <= last && hi > last {
			return appendByteSequences(appendByteSequences(out, lo, last), last+1, hi)
		}
	}
	for shift := 6; shift <= 18; shift += 6 {
		mask := rune(1)<<shift - 1
		if lo&^mask == hi&^mask {
			break
		}
		if lo&mask != 0 {
			return appendByteSequences(appendByteSequences(out, lo, lo|mask), (lo|mask)+1, hi)
		}
		if hi&mask != mask {
			return appendByteSequences(appendByteSequences(out, lo, hi&^mask-1), hi&^mask, hi)
		}
	}
	first, last := string(lo), string(hi)
	sequence := make(byteSequence, len(first))
	for i := range len(first) {
		sequence[i] = byteRange{first[i], last[i]}
	}
	return append(out, sequence)
}
