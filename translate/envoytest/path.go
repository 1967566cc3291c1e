package envoytest

import (
	"strings"

	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// normalizeTarget is what the connection manager makes of path and query before it routes. redirect
// tells that the client is sent to the result; ok is false for a request that is refused.
func normalizeTarget(hcm *http_connection_managerpb.HttpConnectionManager, target string) (out string, redirect, ok bool) {
	if strings.Contains(target, "#") {
		return "", false, false // a fragment is for clients only
	}
	path, query, hasQuery := strings.Cut(target, "?")
	if action := hcm.GetPathWithEscapedSlashesAction(); action > http_connection_managerpb.HttpConnectionManager_KEEP_UNCHANGED {
		if unescaped := unescapeSlashes(path); unescaped != path {
			switch action {
			case http_connection_managerpb.HttpConnectionManager_REJECT_REQUEST:
				return "", false, false
			case http_connection_managerpb.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
				redirect = true
			default:
			}
			path = unescaped
		}
	}
	if hcm.GetNormalizePath().GetValue() {
		if path, ok = canonicalPath(path); !ok {
			return "", false, false
		}
	}
	if hcm.GetMergeSlashes() {
		for strings.Contains(path, "//") {
			path = strings.ReplaceAll(path, "//", "/")
		}
	}
	if hasQuery {
		path += "?" + query
	}
	return path, redirect, true
}

func unescapeSlashes(path string) string {
	return strings.NewReplacer("%2F", "/", "%2f", "/", "%5C", `\`, "%5c", `\`).Replace(path)
}

// canonicalPath is what the URL library of Chromium, which Envoy uses, makes of a path: it resolves
// dot segments, also escaped ones, turns backslashes into slashes, decodes the escapes of unreserved
// characters and encodes what a path cannot hold. It leaves repeated slashes and other escapes alone.
func canonicalPath(path string) (string, bool) {
	out := make([]byte, 0, len(path)+1)
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, `\`) {
		out = append(out, '/')
	}
	ok := true
	for i := 0; i < len(path); i++ {
		c := path[i]
		if dot := dotLength(path[i:]); dot > 0 {
			length := dot
			if len(out) > 0 && out[len(out)-1] == '/' {
				rest := path[i+dot:]
				up := dotLength(rest)
				switch {
				case rest == "" || isSlash(rest[0]): // this directory
					length += min(len(rest), 1)
				case up > 0 && (len(rest) == up || isSlash(rest[up])): // the one above
					length += up + min(len(rest)-up, 1)
					out = parent(out)
				default:
					out = append(out, '.')
				}
			} else {
				out = append(out, '.')
			}
			i += length - 1
			continue
		}
		switch {
		case c == '\\':
			out = append(out, '/')
		case c == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]):
			if decoded := unhex(path[i+1])<<4 | unhex(path[i+2]); isUnreserved(decoded) {
				out = append(out, decoded)
			} else {
				out = append(out, path[i:i+3]...)
				ok = ok && decoded != 0
			}
			i += 2
		case c == 0:
			ok = false
		case c <= ' ' || c >= 0x7f || strings.IndexByte("\"#<>?^`{}", c) >= 0:
			const digits = "0123456789ABCDEF"
			out = append(out, '%', digits[c>>4], digits[c&15])
		default:
			out = append(out, c)
		}
	}
	return string(out), ok
}

// dotLength returns the length of the dot, escaped or not, at the start of s; 0 without.
func dotLength(s string) int {
	switch {
	case strings.HasPrefix(s, "."):
		return 1
	case strings.HasPrefix(s, "%2e"), strings.HasPrefix(s, "%2E"):
		return 3
	}
	return 0
}

// parent removes the last segment of a path that ends in a slash. The root has no parent.
func parent(path []byte) []byte {
	i := len(path) - 1
	for i > 0 && path[i-1] != '/' {
		i--
	}
	return path[:max(i, 1)]
}

func isSlash(c byte) bool { return c == '/' || c == '\\' }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// cutQuery returns a target without query and fragment.
func cutQuery(target string) string {
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		return target[:i]
	}
	return target
}
