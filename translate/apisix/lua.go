package apisix

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// LuaQuote writes a string as a literal of Lua.
func LuaQuote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, "\\%03d", c) // three digits, because one may follow
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// normalValue brings a value to what JSON decoding would make of it.
func normalValue(v any) any {
	switch v := v.(type) {
	case nil, bool, string, float64, []any, map[string]any:
		if list, ok := v.([]any); ok {
			out := make([]any, len(list))
			for i, element := range list {
				out[i] = normalValue(element)
			}
			return out
		}
		return v
	case int:
		return float64(v)
	case int64:
		return float64(v)
	case uint32:
		return float64(v)
	}
	if list, ok := exprList(v); ok {
		return normalValue(list)
	}
	encoded, err := json.Marshal(v)
	if err != nil {
		return v
	}
	var out any
	if json.Unmarshal(encoded, &out) != nil {
		return v
	}
	return out
}

// luaString is Lua's conversion of a string or number to a string.
func luaString(v any) (string, bool) {
	switch v := normalValue(v).(type) {
	case string:
		return v, true
	case float64:
		return strconv.FormatFloat(v, 'g', 14, 64), true
	}
	return "", false
}

// luaNumber is LuaJIT's tonumber.
func luaNumber(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case string:
		s := strings.Trim(v, " \t\n\v\f\r")
		if s == "" || strings.Contains(s, "_") {
			return 0, false
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil || errors.Is(err, strconv.ErrRange) {
			return f, true
		}
		// Hexadecimal without an exponent, and binary, which Go wants written otherwise.
		sign, digits := 1.0, s
		switch s[0] {
		case '-':
			sign, digits = -1, s[1:]
		case '+':
			digits = s[1:]
		}
		if len(digits) > 2 && digits[0] == '0' {
			switch digits[1] {
			case 'x', 'X':
				f, err := strconv.ParseFloat(digits+"p0", 64)
				return sign * f, err == nil
			case 'b', 'B':
				n, err := strconv.ParseUint(digits[2:], 2, 64)
				return sign * float64(n), err == nil
			}
		}
	}
	return 0, false
}
