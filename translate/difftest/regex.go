package difftest

import (
	"regexp/syntax"
	"strconv"
	"strings"
)

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// samples returns texts that an expression matches, and some that it nearly does.
func samples(expression string) []string {
	re, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil
	}
	re = re.Simplify()
	var out []string
	for variant := range 4 {
		var b strings.Builder
		sample(&b, re, variant)
		text := b.String()
		out = append(out, text)
		if variant == 1 && text != "" {
			out = append(out, text+"x", text[:len(text)-1], strings.ToUpper(text))
		}
	}
	return out
}

// sample writes a text that the expression matches; variants differ in what is repeated or chosen.
func sample(b *strings.Builder, re *syntax.Regexp, variant int) {
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		if n := len(re.Rune) / 2; n > 0 {
			i := variant % n
			low, high := re.Rune[2*i], re.Rune[2*i+1]
			switch {
			case low <= 'a' && 'a' <= high:
				low = 'a'
			case low < ' ' && high > ' ':
				low = '!'
			}
			b.WriteRune(min(low+rune(variant%2), high))
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte("ab-1"[variant%4])
	case syntax.OpCapture, syntax.OpPlus:
		sample(b, re.Sub[0], variant)
		if re.Op == syntax.OpPlus && variant > 1 {
			sample(b, re.Sub[0], variant-1)
		}
	case syntax.OpStar, syntax.OpQuest:
		if variant > 0 {
			sample(b, re.Sub[0], variant)
		}
		if re.Op == syntax.OpStar && variant > 2 {
			sample(b, re.Sub[0], variant-1)
		}
	case syntax.OpRepeat:
		for range max(re.Min, min(variant, 2)) {
			sample(b, re.Sub[0], variant)
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			sample(b, sub, variant)
		}
	case syntax.OpAlternate:
		sample(b, re.Sub[variant%len(re.Sub)], variant)
	default: // positions
	}
}
