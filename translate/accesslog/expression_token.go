package accesslog

import (
	"regexp"
	"strings"
)

type tokenKind int

const (
	tokenEnd tokenKind = iota
	tokenBad
	tokenName
	tokenInt
	tokenString
	tokenSymbol
)

// token is a word of an expression; the text of a string is what it stands for.
type token struct {
	kind tokenKind
	text string
}

// next reads a token.
func (x *exprParser) next() {
	x.rest = strings.TrimLeft(x.rest, " \t\r\n")
	if x.rest == "" {
		x.token = token{kind: tokenEnd}
		return
	}
	patterns := []struct {
		kind tokenKind
		text string
	}{
		{tokenString, `\A[rR]?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')`},
		{tokenName, `\A[A-Za-z_][A-Za-z0-9_]*`},
		{tokenInt, `\A-?(?:0x[0-9a-fA-F]+|[0-9]+)`},
		{tokenSymbol, `\A(?:\|\||&&|==|!=|<=|>=|[<>!()\[\],.])`},
	}
	for _, pattern := range patterns {
		text := regexp.MustCompile(pattern.text).FindString(x.rest)
		if text == "" {
			continue
		}
		x.rest = x.rest[len(text):]
		x.token = token{pattern.kind, text}
		switch pattern.kind {
		case tokenString:
			x.token = unquoted(text)
		case tokenInt: // CEL has other numbers, and none with leading zeros that Go would take for octal
			if strings.HasPrefix(x.rest, ".") || regexp.MustCompile(`\A[A-Za-z0-9_]`).MatchString(x.rest) ||
				regexp.MustCompile(`\A-?0[0-9]`).MatchString(text) {
				x.token.kind = tokenBad
			}
		default:
		}
		return
	}
	x.token = token{kind: tokenBad}
}

// unquoted reads a string literal: a raw one, or one with the usual escapes.
func unquoted(text string) token {
	if raw := strings.TrimLeft(text, "rR"); raw != text {
		if strings.HasPrefix(raw, `""`) && len(raw) > 2 {
			return token{kind: tokenBad}
		}
		return token{tokenString, raw[1 : len(raw)-1]}
	}
	text = text[1 : len(text)-1]
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b.WriteByte(text[i])
			continue
		}
		i++
		switch c := text[i]; c {
		case '\\', '"', '\'', '`', '?':
			b.WriteByte(c)
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		default:
			return token{kind: tokenBad} // by number
		}
	}
	return token{tokenString, b.String()}
}
