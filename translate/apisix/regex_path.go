package apisix

import (
	"fmt"
	"regexp/syntax"
	"slices"
)

// PathRegex translates an RE2 expression that must match a whole path into two PCREs: raw for
// $real_request_uri, whose path ends at a question mark, and decoded for $uri. Nothing in raw
// matches beyond the path.
func PathRegex(re2 string) (raw, decoded string, err error) {
	if decoded, err = FullMatchRegex(re2); err != nil {
		return "", "", err
	}
	re, err := syntax.Parse(re2, syntax.Perl)
	if err != nil {
		return "", "", fmt.Errorf("regular expression %q: %w", re2, err)
	}
	if re, err = withinPath(withoutEnd(re)); err != nil {
		return "", "", fmt.Errorf("regular expression %q: %w", re2, err)
	}
	var p pcrePrinter
	p.print(re)
	if p.err != nil {
		return "", "", fmt.Errorf("regular expression %q: %w", re2, p.err)
	}
	return `\A(?:` + p.b.String() + `)` + PathEnd, decoded, nil
}

// PathEnd is the PCRE of the end of the path in $real_request_uri.
const PathEnd = `(?:\?|\z)`

// withoutEnd drops an end of text at the end, which a match of the whole path has anyway.
func withoutEnd(re *syntax.Regexp) *syntax.Regexp {
	switch {
	case re.Op == syntax.OpEndText:
		return &syntax.Regexp{Op: syntax.OpEmptyMatch}
	case re.Op == syntax.OpConcat && re.Sub[len(re.Sub)-1].Op == syntax.OpEndText:
		return &syntax.Regexp{Op: syntax.OpConcat, Sub: re.Sub[:len(re.Sub)-1]}
	}
	return re
}

// withinPath returns re without question marks. It refuses what depends on the end of the text.
func withinPath(re *syntax.Regexp) (*syntax.Regexp, error) {
	const mark = '?'
	out := *re
	switch re.Op {
	case syntax.OpLiteral:
		if slices.Contains(re.Rune, mark) {
			return &syntax.Regexp{Op: syntax.OpNoMatch}, nil
		}
	case syntax.OpAnyChar:
		return &syntax.Regexp{Op: syntax.OpCharClass, Rune: excludeRune([]rune{0, unicodeMax}, mark)}, nil
	case syntax.OpAnyCharNotNL:
		return &syntax.Regexp{Op: syntax.OpCharClass, Rune: excludeRune([]rune{0, '\n' - 1, '\n' + 1, unicodeMax}, mark)}, nil
	case syntax.OpCharClass:
		out.Rune = excludeRune(re.Rune, mark)
	case syntax.OpEndText, syntax.OpEndLine, syntax.OpBeginLine, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return nil, fmt.Errorf("%w: %v within a path", ErrRegexNotPortable, re)
	default:
	}
	out.Sub = make([]*syntax.Regexp, len(re.Sub))
	for i, sub := range re.Sub {
		var err error
		if out.Sub[i], err = withinPath(sub); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

const unicodeMax = '\U0010FFFF'

// excludeRune removes a character from sorted ranges.
func excludeRune(ranges []rune, excluded rune) []rune {
	var out []rune
	for pair := range slices.Chunk(ranges, 2) {
		lo, hi := pair[0], pair[1]
		if excluded < lo || hi < excluded {
			out = append(out, lo, hi)
			continue
		}
		if lo < excluded {
			out = append(out, lo, excluded-1)
		}
		if excluded < hi {
			out = append(out, excluded+1, hi)
		}
	}
	return out
}
