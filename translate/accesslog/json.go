package accesslog

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"
)

// jsonNode is a part of a JSON format: one of constant, null, template, fields and elements.
type jsonNode struct {
	// constant is JSON.
	constant []byte
	null     bool
	template template
	// fields are sorted by name, as Envoy sorts them.
	fields   []jsonField
	elements []jsonNode
	object   bool
}

type jsonField struct {
	name []byte // JSON
	jsonNode
}

func (p *parser) parseJSONObject(s *structpb.Struct) jsonNode {
	n := jsonNode{object: true}
	for _, name := range slices.Sorted(maps.Keys(s.GetFields())) {
		n.fields = append(n.fields, jsonField{appendJSONString(nil, []byte(name)), p.parseJSON(s.GetFields()[name])})
	}
	return n
}

func (p *parser) parseJSON(v *structpb.Value) jsonNode {
	switch v := v.GetKind().(type) {
	case *structpb.Value_StructValue:
		return p.parseJSONObject(v.StructValue)
	case *structpb.Value_ListValue:
		var n jsonNode
		for _, element := range v.ListValue.GetValues() {
			n.elements = append(n.elements, p.parseJSON(element))
		}
		return n
	case *structpb.Value_StringValue:
		if strings.Contains(v.StringValue, "%") {
			return jsonNode{template: p.parseTemplate(v.StringValue)}
		}
		return jsonNode{constant: appendJSONString(nil, []byte(v.StringValue))}
	case *structpb.Value_NumberValue:
		if text, err := json.Marshal(v.NumberValue); err == nil {
			return jsonNode{constant: text}
		}
	case *structpb.Value_BoolValue:
		if v.BoolValue {
			return jsonNode{constant: []byte("true")}
		}
		return jsonNode{constant: []byte("false")}
	}
	return jsonNode{null: true, constant: []byte("null")}
}

// omit removes what is null whatever happens.
func (n *jsonNode) omit() {
	n.fields = slices.DeleteFunc(n.fields, func(f jsonField) bool { return f.null })
	n.elements = slices.DeleteFunc(n.elements, func(e jsonNode) bool { return e.null })
	for i := range n.fields {
		n.fields[i].omit()
	}
	for i := range n.elements {
		n.elements[i].omit()
	}
}

// append appends the JSON. With omit, ok is false where that is empty: for a value that there is not, and for
// an object of nothing else.
func (n *jsonNode) append(dst []byte, l *Log, e *Entry, omit bool) (out []byte, ok bool) {
	switch {
	case n.constant != nil:
		return append(dst, n.constant...), true
	case n.template != nil:
		return n.template.appendJSON(dst, l, e, omit)
	case n.object:
		start := len(dst)
		dst = append(dst, '{')
		for i := range n.fields {
			f, mark := &n.fields[i], len(dst)
			if mark > start+1 {
				dst = append(dst, ',')
			}
			dst = append(append(dst, f.name...), ':')
			if dst, ok = f.append(dst, l, e, omit); !ok {
				dst = dst[:mark]
			}
		}
		if omit && len(dst) == start+1 {
			return dst[:start], false
		}
		return append(dst, '}'), true
	}
	start := len(dst)
	dst = append(dst, '[')
	for i := range n.elements {
		mark := len(dst)
		if mark > start+1 {
			dst = append(dst, ',')
		}
		if dst, ok = n.elements[i].append(dst, l, e, omit); !ok {
			dst = dst[:mark]
		}
	}
	return append(dst, ']'), true
}

// appendJSON appends the value of a template: that of a single operator has its type, and is null where there
// is none.
func (t template) appendJSON(dst []byte, l *Log, e *Entry, omit bool) (out []byte, ok bool) {
	if len(t) != 1 || t[0].append == nil {
		return appendJSONString(dst, t.append(nil, l, e, emptyValue(omit))), true
	}
	value, ok := t[0].append(nil, l, e)
	switch {
	case !ok && omit:
		return dst, false
	case !ok:
		return append(dst, "null"...), true
	case t[0].number:
		return append(dst, value...), true
	}
	return appendJSONString(dst, value), true
}

// appendJSONString appends a string; what is no UTF-8 becomes U+FFFD.
func appendJSONString(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += size
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		case strings.IndexByte("\b\f\n\r\t", c) >= 0:
			dst = append(dst, '\\', "bfnrt"[strings.IndexByte("\b\f\n\r\t", c)])
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	return append(dst, '"')
}
