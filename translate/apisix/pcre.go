package apisix

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// APISIX compiles regular expressions with PCRE2 without UTF mode: patterns and subjects are bytes,
// and case folds for ASCII only. Go's regexp is used for that by giving each byte beyond ASCII a
// character of a private use area, which has no case and belongs to no class.
const byteBase = 0xe000

// errPCREOnly is the error of a PCRE that may be fine but that Go cannot evaluate.
var errPCREOnly = errors.New("uses PCRE syntax that cannot be evaluated here")

// pcre is a compiled PCRE of the subset that Go can evaluate.
type pcre struct{ re *regexp.Regexp }

// compilePCRE compiles a PCRE. The error wraps errPCREOnly where the expression may well be valid
// in PCRE; any other error means that PCRE refuses it too.
func compilePCRE(pattern string, fold bool) (*pcre, error) {
	translated, err := pcreToGo(pattern)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", pattern, err)
	}
	if fold {
		// Go folds k and s to characters beyond ASCII as well, which no subject has.
		translated = "(?i)" + translated
	}
	re, err := regexp.Compile(translated)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", pattern, regexError(err))
	}
	return &pcre{re}, nil
}

// regexError tells syntax that PCRE knows and Go does not from syntax that is broken in both.
func regexError(err error) error {
	if syntaxErr, ok := errors.AsType[*syntax.Error](err); ok {
		switch syntaxErr.Code {
		case syntax.ErrMissingBracket, syntax.ErrMissingParen, syntax.ErrUnexpectedParen,
			syntax.ErrMissingRepeatArgument, syntax.ErrTrailingBackslash, syntax.ErrInvalidCharRange:
			return err
		default: // for example lookaround, back-references, repetitions over 1000
			return fmt.Errorf("%w: %w", errPCREOnly, err)
		}
	}
	return err
}

// match tells whether the expression matches anywhere in subject.
func (p *pcre) match(subject string) bool { return p.re.MatchString(bytesAsRunes(subject)) }

// matchWhole tells whether the first match, as PCRE finds it, is the whole subject.
func (p *pcre) matchWhole(subject string) bool {
	s := bytesAsRunes(subject)
	loc := p.re.FindStringIndex(s)
	return loc != nil && loc[0] == 0 && loc[1] == len(s)
}

// replaceFirst is ngx.re.sub: it replaces the first match, where $1, ${1} and $0 stand for captures
// and $$ for a dollar sign. ok is false without a match.
func (p *pcre) replaceFirst(subject, template string) (result string, ok bool) {
	s := bytesAsRunes(subject)
	loc := p.re.FindStringSubmatchIndex(s)
	if loc == nil {
		return subject, false
	}
	capture := func(n int) string {
		if 2*n+1 >= len(loc) || loc[2*n] < 0 {
			return ""
		}
		return runesAsBytes(s[loc[2*n]:loc[2*n+1]])
	}
	return runesAsBytes(s[:loc[0]]) + expandCaptures(template, capture) + runesAsBytes(s[loc[1]:]), true
}

func expandCaptures(template string, capture func(int) string) string {
	var b strings.Builder
	for i := 0; i < len(template); {
		rest := template[i:]
		switch {
		case strings.HasPrefix(rest, "$$"):
			b.WriteByte('$')
			i += 2
			continue
		case rest[0] == '$':
			start, end := 1, 1
			braced := strings.HasPrefix(rest, "${")
			if braced {
				start, end = 2, 2
			}
			n := 0
			for end < len(rest) && '0' <= rest[end] && rest[end] <= '9' && n < 1000 {
				n = n*10 + int(rest[end]-'0')
				end++
			}
			if end > start && (!braced || end < len(rest) && rest[end] == '}') {
				b.WriteString(capture(n))
				if braced {
					end++
				}
				i += end
				continue
			}
		}
		b.WriteByte(rest[0])
		i++
	}
	return b.String()
}

func bytesAsRunes(s string) string {
	if isASCII(s) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(byteRune(s[i]))
	}
	return b.String()
}

func runesAsBytes(s string) string {
	if isASCII(s) {
		return s
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

func byteRune(c byte) rune {
	if c < utf8.RuneSelf {
		return rune(c)
	}
	return byteBase + rune(c)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// pcreToGo rewrites what means something else in Go: bytes beyond ASCII, \Q…\E, \s, \h, \Z and $.
func pcreToGo(pattern string) (string, error) {
	t := pcreTokens{in: pattern}
	for t.i < len(t.in) {
		if err := t.next(); err != nil {
			return "", err
		}
	}
	return t.out.String(), nil
}

type pcreTokens struct {
	in  string
	i   int
	out strings.Builder
	// class is the offset behind "[" or "[^" of the class that we are in, 0 outside.
	class int
}

func (t *pcreTokens) next() error {
	c := t.in[t.i]
	switch {
	case c == '\\':
		return t.escape()
	case c >= utf8.RuneSelf:
		t.out.WriteRune(byteRune(c))
	case t.class > 0:
		if strings.HasPrefix(t.in[t.i:], "[:") {
			if end := strings.Index(t.in[t.i:], ":]"); end > 0 {
				t.out.WriteString(t.in[t.i : t.i+end+2])
				t.i += end + 2
				return nil
			}
		}
		switch c {
		case ']':
			if t.i > t.class { // a first ] is literal
				t.class = 0
			} else {
				t.out.WriteByte('\\')
			}
		case '[':
			t.out.WriteByte('\\')
		}
		t.out.WriteByte(c)
	case c == '[':
		t.out.WriteByte(c)
		if strings.HasPrefix(t.in[t.i+1:], "^") {
			t.i++
			t.out.WriteByte('^')
		}
		t.class = t.i + 1
	case c == '$':
		return t.dollar(1)
	case strings.HasPrefix(t.in[t.i:], "(?"):
		return t.extension()
	case strings.HasPrefix(t.in[t.i:], "(*"):
		return fmt.Errorf("%w: (*", errPCREOnly)
	default:
		t.out.WriteByte(c)
	}
	t.i++
	return nil
}

// dollar handles $ and \Z, which also match before a final newline. That is expressed as an
// optional newline, which is right only where nothing follows.
func (t *pcreTokens) dollar(length int) error {
	t.i += length
	if rest := t.in[t.i:]; rest != "" && rest[0] != ')' && rest[0] != '|' {
		return fmt.Errorf("%w: something behind $", errPCREOnly)
	}
	t.out.WriteString(`(?:\n?\z)`)
	return nil
}

// extension lets pass the groups that mean the same in Go.
func (t *pcreTokens) extension() error {
	rest := t.in[t.i+2:]
	switch {
	case strings.HasPrefix(rest, `=\n|\z)`): // how RegexToPCRE prints the end of a line
		t.out.WriteString("(?m:$)")
		t.i += 2 + len(`=\n|\z)`)
		return nil
	case strings.HasPrefix(rest, "m:^)"):
		t.out.WriteString("(?m:^)")
		t.i += 2 + len("m:^)")
		return nil
	case strings.HasPrefix(rest, "P<"), strings.HasPrefix(rest, "<") && !strings.HasPrefix(rest, "<=") && !strings.HasPrefix(rest, "<!"):
	default:
		flags := strings.TrimLeft(rest, "is-")
		if flags == "" || flags[0] != ':' && flags[0] != ')' {
			return fmt.Errorf("%w: (?%.4s", errPCREOnly, rest)
		}
	}
	t.out.WriteString("(?")
	t.i += 2
	return nil
}

func (t *pcreTokens) escape() error {
	if t.i+1 == len(t.in) {
		t.out.WriteByte('\\') // Go reports the trailing backslash
		t.i++
		return nil
	}
	c := t.in[t.i+1]
	switch c {
	case 'Q':
		literal, rest, found := strings.Cut(t.in[t.i+2:], `\E`)
		for i := range len(literal) {
			t.out.WriteString(regexp.QuoteMeta(string(byteRune(literal[i]))))
		}
		if t.i = len(t.in); found {
			t.i -= len(rest)
		}
		return nil
	case 'E':
		t.i += 2 // without \Q it means nothing
		return nil
	case 'x':
		return t.hexEscape()
	case 'Z':
		if t.class > 0 {
			break
		}
		return t.dollar(2)
	case 'G', 'K', 'R', 'X', 'N', 'p', 'P', 'C', 'g', 'k', 'c', 'o', 'H', 'V', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return fmt.Errorf("%w: \\%c", errPCREOnly, c)
	case 's': // with vertical tab
		t.members(`\t-\r `)
		return nil
	case 'S':
		if t.class > 0 {
			return fmt.Errorf("%w: \\S within a class", errPCREOnly)
		}
		t.out.WriteString(`[^\t-\r ]`)
		t.i += 2
		return nil
	case 'h':
		t.members(`\t ` + string(byteRune(0xa0)))
		return nil
	case 'e':
		t.out.WriteString(`\x1b`)
		t.i += 2
		return nil
	}
	if c >= utf8.RuneSelf {
		t.i++ // the backslash before a byte beyond ASCII means nothing
		return nil
	}
	if t.class > 0 && c == 'b' { // backspace
		t.out.WriteString(`\x08`)
		t.i += 2
		return nil
	}
	t.out.WriteString(t.in[t.i : t.i+2])
	t.i += 2
	return nil
}

// members writes the members of a class for an escape of two bytes.
func (t *pcreTokens) members(set string) {
	if t.class > 0 {
		t.out.WriteString(set)
	} else {
		t.out.WriteString("[" + set + "]")
	}
	t.i += 2
}

// hexEscape handles \xh, \xhh and \x{h…}.
func (t *pcreTokens) hexEscape() error {
	digits, length := t.in[t.i+2:], 0
	if strings.HasPrefix(digits, "{") {
		end := strings.IndexByte(digits, '}')
		if end < 0 {
			return fmt.Errorf("%w: \\x{ without }", errPCREOnly)
		}
		digits, length = digits[1:end], end+1
	} else {
		for length < 2 && length < len(digits) && isHex(digits[length]) {
			length++
		}
		digits = digits[:length]
	}
	n := 0
	for i := range len(digits) {
		if !isHex(digits[i]) || n > 0xff {
			return errors.New("\\x{…} is not a byte")
		}
		n = n<<4 | hexValue(digits[i])
	}
	if n > 0xff {
		return errors.New("\\x{…} is not a byte")
	}
	fmt.Fprintf(&t.out, `\x{%x}`, byteRune(byte(n)))
	t.i += 2 + length
	return nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func hexValue(c byte) int {
	if c <= '9' {
		return int(c - '0')
	}
	return int(c|0x20-'a') + 10
}
