package capture

import (
	"bytes"
	"slices"
	"strings"
)

// maxRequestLine is how long a request line may be for HTTP to be recognised: as in Envoy's
// http_inspector.
const maxRequestLine = 64 << 10

// http2Preface begins HTTP/2 with prior knowledge (RFC 9113, 3.4).
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// The application protocols of plain text, as Envoy's http_inspector names them.
const (
	protocolHTTP10 = "http/1.0"
	protocolHTTP11 = "http/1.1"
	protocolH2C    = "h2c"
)

// readRequestLine looks whether a connection begins with HTTP in plain text, and fills in which. It
// decides as soon as it can: other protocols differ within the first bytes.
func readRequestLine(b []byte, into *inspected) verdict {
	if v := hasPrefix(b, http2Preface); v != no {
		if v == yes {
			into.protocols = []string{protocolH2C}
		}
		return v
	}
	b = bytes.TrimLeft(b, "\r\n") // empty lines before the request (RFC 9112, 2.2)
	line, _, whole := bytes.Cut(b, []byte("\n"))
	method, target, found := bytes.Cut(line, []byte(" "))
	switch {
	case !found && whole:
		return no
	case !found:
		return methodBegins(method)
	case !isMethod(string(method)), len(line) > maxRequestLine:
		return no
	case !whole:
		return targetBegins(target)
	}
	at := bytes.LastIndexByte(target, ' ')
	if at <= 0 || targetBegins(target[:at]) == no {
		return no
	}
	switch string(bytes.TrimSuffix(target[at+1:], []byte("\r"))) {
	case "HTTP/1.1":
		into.protocols = []string{protocolHTTP11}
	case "HTTP/1.0":
		into.protocols = []string{protocolHTTP10}
	default:
		return no
	}
	return yes
}

// hasPrefix tells whether b begins with prefix, or may when there is more of it. Nothing at all is
// undecided.
func hasPrefix(b []byte, prefix string) verdict {
	switch {
	case len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix:
		return yes
	case len(b) < len(prefix) && prefix[:len(b)] == string(b):
		return undecided
	default:
		return no
	}
}

// methods are those that Envoy's parser knows.
var methods = [...]string{
	"ACL", "BIND", "CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD", "LINK", "LOCK", "M-SEARCH",
	"MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "OPTIONS", "PATCH", "POST",
	"PROPFIND", "PROPPATCH", "PURGE", "PUT", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE",
	"TRACE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE",
}

func isMethod(name string) bool {
	_, found := slices.BinarySearch(methods[:], name)
	return found
}

// methodBegins tells whether b may be the begin of a method.
func methodBegins(b []byte) verdict {
	at, _ := slices.BinarySearch(methods[:], string(b))
	if at < len(methods) && strings.HasPrefix(methods[at], string(b)) {
		return undecided
	}
	return no
}

// targetBegins tells whether b may be the begin of a request target: it has no control characters.
func targetBegins(b []byte) verdict {
	for _, c := range bytes.TrimSuffix(b, []byte("\r")) {
		if c < ' ' || c == 0x7f {
			return no
		}
	}
	return undecided
}
