package difftest

import (
	"net/url"
	"slices"
	"strings"

	"meshbridge/translate/apisix"
	"meshbridge/translate/envoytest"
)

// codeNormalization is the code of the differences that all requests have in common: they are in how
// the two servers read a request, before any configuration of routes.
const codeNormalization = "request_normalization"

// normalForms returns the request as nginx reads it, in spellings in which Envoy reads the same; none
// where it is spelled so. A difference between the sides for the request itself is explained where
// there is none for a normal form. There are several, because a configuration may spell the value of a
// query parameter with or without escapes, and the Host as it was sent is what header matchers see.
func normalForms(r envoytest.Request) []envoytest.Request {
	out := r
	out.Target, out.Headers, out.Host = normalTarget(r.Target), joinedLines(r.Headers), normalHost(r.Host)
	if out.Target == r.Target && len(out.Headers) == len(r.Headers) && out.Host == r.Host {
		return nil
	}
	forms := []envoytest.Request{out}
	if path, query, ok := strings.Cut(out.Target, "?"); ok {
		if decoded, err := url.PathUnescape(query); err == nil {
			out.Target = path + "?" + strings.NewReplacer("#", "%23", " ", "%20", "\x00", "%00").Replace(decoded)
			forms = append(forms, out)
		}
	}
	if out.Host != r.Host {
		for _, form := range forms {
			form.Host = r.Host
			forms = append(forms, form)
		}
	}
	return forms
}

// normalTarget decodes, merges slashes and resolves dots, and encodes what has to be.
func normalTarget(target string) string {
	target, _, _ = strings.Cut(target, "#")
	path, query, hasQuery := strings.Cut(target, "?")
	path = normalPath(path)
	if !hasQuery || query == "" {
		return path
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		name, value, hasValue := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = encode(decoded, "&=+")
		}
		if decoded, err := url.QueryUnescape(value); err == nil {
			value = encode(decoded, "&+")
		}
		pairs[i] = name
		if hasValue {
			pairs[i] += "=" + value
		}
	}
	return path + "?" + strings.Join(pairs, "&")
}

func normalPath(path string) string {
	if decoded, err := url.PathUnescape(path); err == nil {
		path = decoded
	}
	var out []string
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, s := range segments {
		final := i == len(segments)-1
		switch s {
		case "", ".":
			if final {
				out = append(out, "")
			}
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
			if final {
				out = append(out, "")
			}
		default:
			out = append(out, encode(s, ""))
		}
	}
	return "/" + strings.Join(out, "/")
}

// encode escapes what a URL cannot hold, and the characters of special.
func encode(s, special string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("%?#\\\"<>^`{}|"+special, c) >= 0 {
			b.WriteString("%" + string(digits[c>>4]) + string(digits[c&15]))
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// joinedLines makes one line of those that are one variable to nginx.
func joinedLines(headers []envoytest.Header) []envoytest.Header {
	var out []envoytest.Header
	for _, h := range headers {
		i := slices.IndexFunc(out, func(o envoytest.Header) bool { return variable(o.Name) == variable(h.Name) })
		if i < 0 {
			out = append(out, h)
			continue
		}
		separator := ", "
		if strings.EqualFold(h.Name, "cookie") {
			separator = "; "
		}
		out[i].Value += separator + h.Value
	}
	return out
}

// hasOddCookies tells whether APISIX reads other cookies in a Cookie header than Envoy does: there is white
// space in a value, a name that is repeated, or a pair without "=".
func hasOddCookies(o *outcome) bool {
	for _, h := range joinedLines(o.envoy.Headers) {
		if !strings.EqualFold(h.Name, "cookie") {
			continue
		}
		cookies := apisix.Cookies(h.Value)
		for i, pair := range strings.Split(h.Value, "; ") {
			name, value, ok := strings.Cut(pair, "=")
			if read, known := cookies[name]; !ok || !known || read != value || i >= len(cookies) {
				return true
			}
		}
	}
	return false
}

func variable(header string) string { return strings.ReplaceAll(strings.ToLower(header), "-", "_") }

// normalHost is a host without its port, and without the dot at its end.
func normalHost(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	return strings.TrimSuffix(host, ".")
}
