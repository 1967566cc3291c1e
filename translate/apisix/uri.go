package apisix

import (
	"errors"
	"strings"
)

// errBadURI is what nginx answers 400 to.
var errBadURI = errors.New("nginx refuses the path: a bad percent-encoding, a NUL byte, or .. above the root")

// normalizeURI splits a request target into nginx's $uri and $args as ngx_http_parse_complex_uri
// does: percent-decoded, slashes merged, dot segments resolved.
func normalizeURI(target string) (path, args string, err error) {
	raw, args, _ := strings.Cut(target, "?")
	if i := strings.IndexByte(raw, '#'); i >= 0 {
		raw, args = raw[:i], ""
	}
	args, _, _ = strings.Cut(args, "#")
	if !strings.HasPrefix(raw, "/") {
		return "", "", errBadURI
	}
	if !strings.Contains(raw, "%") && !strings.Contains(raw, "//") && !strings.Contains(raw, "/.") {
		return raw, args, nil
	}
	segments, err := decodeSegments(raw[1:])
	if err != nil {
		return "", "", err
	}
	path, err = resolveSegments(segments)
	return path, args, err
}

// decodeSegments decodes a path and splits it at slashes, among them encoded ones.
func decodeSegments(raw string) ([]string, error) {
	var segments []string
	var segment strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
				return nil, errBadURI
			}
			if c = byte(hexValue(raw[i+1])<<4 | hexValue(raw[i+2])); c == 0 {
				return nil, errBadURI
			}
			i += 2
		}
		if c == '/' {
			segments = append(segments, segment.String())
			segment.Reset()
			continue
		}
		segment.WriteByte(c)
	}
	return append(segments, segment.String()), nil
}

func resolveSegments(segments []string) (string, error) {
	var out []string
	slash := true // whether the path ends in one
	for _, segment := range segments {
		switch segment {
		case "", ".":
			slash = true
		case "..":
			if len(out) == 0 {
				return "", errBadURI
			}
			out = out[:len(out)-1]
			slash = true
		default:
			out = append(out, segment)
			slash = false
		}
	}
	path := "/" + strings.Join(out, "/")
	if slash && len(out) > 0 {
		path += "/"
	}
	return path, nil
}

// normalizeHost returns nginx's $host for a Host header: in lower case, without port and one
// trailing dot; ok is false where nginx answers 400.
func normalizeHost(header string) (host string, ok bool) {
	host = header
	if i := strings.IndexByte(host, ']'); strings.HasPrefix(host, "[") && i > 0 {
		host = host[:i+1]
	} else if i := strings.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	for i := range len(header) {
		if c := header[i]; c <= ' ' || c == 0x7f || c == '/' || c == '.' && i > 0 && header[i-1] == '.' {
			return "", false
		}
	}
	host = strings.TrimSuffix(host, ".")
	return strings.ToLower(host), host != ""
}

// escapeURI percent-encodes a path as nginx's ngx_escape_uri does for a request line.
func escapeURI(path string) string {
	return percentEncode(path, func(c byte) bool {
		return c <= ' ' || c >= 0x7f || strings.IndexByte("\"#%<>?\\^`{|}", c) >= 0
	})
}

// escapeControls percent-encodes what a header cannot contain, as ngx.header does.
func escapeControls(value string) string {
	return percentEncode(value, func(c byte) bool { return c < ' ' || c == 0x7f })
}

func percentEncode(s string, escape func(byte) bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; escape(c) {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
