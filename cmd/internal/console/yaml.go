package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// node is a JSON value that keeps the order of its fields, and to which notes can be attached.
type node struct {
	// keys and values are those of an object; a list has values alone; a scalar has neither.
	keys   []string
	values []*node
	list   bool
	object bool
	// scalar is the value as JSON.
	scalar string
	notes  []int
}

// parseJSON reads a value.
func parseJSON(text []byte) (*node, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return parseNode(d)
}

func parseNode(d *json.Decoder) (*node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	delimiter, composed := token.(json.Delim)
	if !composed {
		text, err := encodeScalar(token)
		return &node{scalar: text}, err
	}
	n := &node{object: delimiter == '{', list: delimiter == '['}
	for d.More() {
		if n.object {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			n.keys = append(n.keys, fmt.Sprint(key))
		}
		value, err := parseNode(d)
		if err != nil {
			return nil, err
		}
		n.values = append(n.values, value)
	}
	_, err = d.Token() // what closes it
	return n, err
}

func encodeScalar(token json.Token) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(token)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// child returns a field; nil where there is none.
func (n *node) child(key string) *node {
	if i := slices.Index(n.keys, key); i >= 0 {
		return n.values[i]
	}
	return nil
}

// text is that of a scalar that is text.
func (n *node) text() string {
	var s string
	if n == nil || json.Unmarshal([]byte(n.scalar), &s) != nil {
		return ""
	}
	return s
}

// first moves a field to the front.
func (n *node) first(key string) {
	if i := slices.Index(n.keys, key); i > 0 {
		value := n.values[i]
		n.without(key)
		n.keys, n.values = slices.Insert(n.keys, 0, key), slices.Insert(n.values, 0, value)
	}
}

// without drops a field.
func (n *node) without(key string) {
	if i := slices.Index(n.keys, key); i >= 0 {
		n.keys, n.values = slices.Delete(n.keys, i, i+1), slices.Delete(n.values, i, i+1)
	}
}

// line is one line of YAML.
type line struct {
	Indent int `json:"-"`
	// Dash tells that an element of a list begins; Key is empty where the line has none.
	Dash       string `json:"-"`
	Key, Value string
	// Notes are about the value that begins here.
	Notes []int
}

// Text is the line without its notes.
func (l line) Text() string {
	text := strings.Repeat("  ", l.Indent) + l.Dash
	if l.Key != "" {
		text += l.Key + ":"
		if l.Value != "" {
			text += " "
		}
	}
	return text + l.Value
}

// yaml writes the value as YAML.
func (n *node) yaml() []line {
	var lines []line
	n.write(&lines, line{})
	return lines
}

// write appends the value to a line that has been begun.
func (n *node) write(lines *[]line, begun line) {
	begun.Notes = append(begun.Notes, n.notes...)
	switch {
	case len(n.values) == 0:
		begun.Value = n.plain()
		*lines = append(*lines, begun)
	case n.list && n.flows():
		begun.Value = n.flow()
		*lines = append(*lines, begun)
	case n.list:
		next := begun.Indent
		if begun.Key != "" || begun.Dash != "" || len(begun.Notes) > 0 {
			if begun.Dash != "" {
				next++
			}
			*lines = append(*lines, begun)
		}
		for _, value := range n.values {
			value.write(lines, line{Indent: next, Dash: "- "})
		}
	default:
		next := begun
		if begun.Key != "" {
			*lines = append(*lines, begun)
			next = line{Indent: begun.Indent + 1}
			if begun.Dash != "" {
				next.Indent++
			}
		}
		for i, key := range n.keys {
			next.Key = plainText(key)
			n.values[i].write(lines, next)
			if next.Dash != "" {
				next.Indent++
			}
			next.Dash, next.Notes = "", nil
		}
	}
}

// flowRoom is how long a list on one line may be, unless it is of numbers.
const flowRoom = 80

// flows tells whether a list is short enough, or dull enough, for one line.
func (n *node) flows() bool {
	length, numbers := 0, true
	for _, value := range n.values {
		if len(value.values) > 0 || len(value.notes) > 0 {
			return false
		}
		numbers = numbers && value.scalar != "" && value.scalar[0] != '"'
		length += len(value.scalar) + 2
	}
	return numbers || length <= flowRoom
}

func (n *node) flow() string {
	texts := make([]string, len(n.values))
	for i, value := range n.values {
		if texts[i] = value.plain(); texts[i] != "" && texts[i][0] != '"' && strings.ContainsAny(texts[i], ",[]{}") && value.scalar != "" {
			texts[i] = value.scalar // these mean something within brackets
		}
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

func (n *node) plain() string {
	switch {
	case n.list:
		return "[]"
	case n.object:
		return "{}"
	}
	var s string
	if json.Unmarshal([]byte(n.scalar), &s) != nil || n.scalar == "null" {
		return n.scalar
	}
	return plainText(s)
}

// plainText quotes what YAML would take for something else than this text.
func plainText(s string) string {
	if isPlain(s) {
		return s
	}
	quoted, err := encodeScalar(s)
	if err != nil {
		return s
	}
	var b strings.Builder
	for _, r := range quoted {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// isPlain is stricter than YAML, and lets through what is common: names, hosts, paths, addresses, durations.
func isPlain(s string) bool {
	if s == "" || s[0] == ' ' || s[len(s)-1] == ' ' || s[len(s)-1] == ':' {
		return false
	}
	switch first := s[0]; {
	case isLetter(first), first == '/', first == '_':
	case isDigit(first):
		if strings.Count(s, ".") < 2 && !strings.HasSuffix(s, "s") {
			return false // it may be a number
		}
	default:
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case isLetter(c), isDigit(c), strings.IndexByte("/_.,;=+%()|@~-*$^?", c) >= 0:
		case c == ':' || c == ' ':
			if s[i+1] == ' ' || s[i+1] == '#' {
				return false
			}
		default:
			return false
		}
	}
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		return false
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// json writes the value as JSON.
func (n *node) json() []byte {
	var b bytes.Buffer
	n.writeJSON(&b)
	return b.Bytes()
}

func (n *node) writeJSON(b *bytes.Buffer) {
	if !n.list && !n.object {
		b.WriteString(n.scalar)
		return
	}
	brackets := "[]"
	if n.object {
		brackets = "{}"
	}
	b.WriteByte(brackets[0])
	for i, value := range n.values {
		if i > 0 {
			b.WriteByte(',')
		}
		if n.object {
			key, err := json.Marshal(n.keys[i])
			if err != nil {
				key = []byte(`""`) // a string has JSON
			}
			b.Write(key)
			b.WriteByte(':')
		}
		value.writeJSON(b)
	}
	b.WriteByte(brackets[1])
}
