package accesslog

import "strconv"

// template is a text with command operators, such as "%START_TIME%".
type template []piece

// piece is a literal, or an operator.
type piece struct {
	literal string
	operator
}

// operator appends the value of a command operator.
type operator struct {
	// append leaves dst as it is, and ok false, where there is no value. It is nil in a literal piece.
	append func(dst []byte, l *Log, e *Entry) (out []byte, ok bool)
	// number tells that the value is one, where types matter.
	number bool
}

// parseTemplate reads a text as Envoy does: %% is a percent sign. What is no operator stays as it is, and
// operators without a value have none; both are reported.
func (p *parser) parseTemplate(text string) template {
	var t template
	var literal []byte
	flush := func() {
		if len(literal) > 0 {
			t = append(t, piece{literal: string(literal)})
			literal = nil
		}
	}
	for text != "" {
		if text[0] != '%' {
			literal = append(literal, text[0])
			text = text[1:]
			continue
		}
		if len(text) > 1 && text[1] == '%' {
			literal = append(literal, '%')
			text = text[2:]
			continue
		}
		m := p.operator.FindStringSubmatch(text)
		if m == nil {
			p.problem("an operator after a percent sign")
			literal = append(literal, '%')
			text = text[1:]
			continue
		}
		flush()
		op, ok := p.parseOperator(m[1], m[2])
		if !ok {
			p.problem("the operator " + m[0])
			op = operator{append: func(dst []byte, _ *Log, _ *Entry) ([]byte, bool) { return dst, false }}
		}
		if m[3] != "" {
			op = truncated(op, m[3])
		}
		t = append(t, piece{operator: op})
		text = text[len(m[0]):]
	}
	flush()
	return t
}

// truncated is an operator with a maximal length in bytes.
func truncated(op operator, length string) operator {
	limit, err := strconv.Atoi(length)
	if err != nil {
		return op // longer than any value
	}
	whole := op.append
	op.append = func(dst []byte, l *Log, e *Entry) ([]byte, bool) {
		out, ok := whole(dst, l, e)
		if len(out)-len(dst) > limit {
			out = out[:len(dst)+limit]
		}
		return out, ok
	}
	return op
}

// append appends the text; empty stands for what has no value.
func (t template) append(dst []byte, l *Log, e *Entry, empty string) []byte {
	for _, piece := range t {
		if piece.append == nil {
			dst = append(dst, piece.literal...)
			continue
		}
		var ok bool
		if dst, ok = piece.append(dst, l, e); !ok {
			dst = append(dst, empty...)
		}
	}
	return dst
}
