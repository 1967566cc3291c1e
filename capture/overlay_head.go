package capture

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// maxRequestHead bounds what is read of the first request of a connection. APISIX accepts less: four
// buffers of 8 KiB.
const maxRequestHead = 64 << 10

// errRequestHead tells that the first bytes are no request.
var errRequestHead = errors.New("the connection does not begin with an HTTP request")

// requestHead is what the beginning of the first request of a connection tells.
type requestHead struct {
	protocol protocol
	// host is the request's, in lower case and without port.
	host string
}

// readProtocol tells what the first bytes speak; done is false where that needs more of them.
func readProtocol(b []byte) (speaks protocol, done bool) {
	n := min(len(b), len(http2.ClientPreface))
	if string(b[:n]) != http2.ClientPreface[:n] {
		return speaksHTTP1, true
	}
	return speaksHTTP2, n == len(http2.ClientPreface)
}

// readRequestHead reads the host of the first request, too; done is false where that needs more bytes.
func readRequestHead(b []byte) (head requestHead, done bool, err error) {
	if head.protocol, done = readProtocol(b); !done {
		return head, false, nil
	}
	var authority string
	if head.protocol == speaksHTTP2 {
		authority, done, err = readHTTP2Authority(b[len(http2.ClientPreface):])
	} else {
		authority, done, err = readHTTP1Host(b)
	}
	if err != nil || !done {
		return head, done, err
	}
	if head.host = hostOf(authority); head.host == "" {
		return head, true, errRequestHead
	}
	return head, true, nil
}

// readHTTP1Host returns the host of the request target, which goes first (RFC 9112, section 3.2.2),
// or that of the header.
func readHTTP1Host(b []byte) (host string, done bool, err error) {
	head, _, complete := bytes.Cut(b, []byte("\r\n\r\n"))
	if !complete {
		return "", false, nil
	}
	line, rest, _ := strings.Cut(string(head), "\r\n")
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !strings.HasPrefix(parts[2], "HTTP/1.") {
		return "", true, errRequestHead
	}
	if _, target, ok := strings.Cut(parts[1], "://"); ok && !strings.HasPrefix(parts[1], "/") {
		if i := strings.IndexAny(target, "/?#"); i >= 0 {
			target = target[:i]
		}
		return target, true, nil
	}
	hosts := 0
	for field := range strings.SplitSeq(rest, "\r\n") {
		name, value, _ := strings.Cut(field, ":")
		if strings.EqualFold(name, "host") {
			host, hosts = strings.Trim(value, " \t"), hosts+1
		}
	}
	if hosts != 1 {
		return "", true, errRequestHead
	}
	return host, true, nil
}

// readHTTP2Authority returns the authority of the first HEADERS frame, with what continues it, among
// the frames after the client's preface.
func readHTTP2Authority(b []byte) (authority string, done bool, err error) {
	const frameHeader = 9
	var block []byte
	for started := false; ; {
		if len(b) < frameHeader {
			return "", false, nil
		}
		length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		kind, flags := http2.FrameType(b[3]), http2.Flags(b[4])
		if length > maxRequestHead || started != (kind == http2.FrameContinuation) {
			return "", true, errRequestHead
		}
		if len(b) < frameHeader+length {
			return "", false, nil
		}
		payload := b[frameHeader : frameHeader+length]
		b = b[frameHeader+length:]
		switch kind {
		case http2.FrameHeaders:
			if payload, done = headerBlock(payload, flags); !done {
				return "", true, errRequestHead
			}
			started = true
		case http2.FrameContinuation:
		default:
			continue // settings, window updates, priorities
		}
		block = append(block, payload...)
		if flags.Has(http2.FlagHeadersEndHeaders) { // the same bit in both
			return decodeAuthority(block)
		}
	}
}

// headerBlock returns the part of a HEADERS frame that is neither padding nor priority.
func headerBlock(payload []byte, flags http2.Flags) ([]byte, bool) {
	padding := 0
	if flags.Has(http2.FlagHeadersPadded) {
		if len(payload) == 0 {
			return nil, false
		}
		padding, payload = int(payload[0]), payload[1:]
	}
	if flags.Has(http2.FlagHeadersPriority) {
		if len(payload) < 5 {
			return nil, false
		}
		payload = payload[5:]
	}
	if padding > len(payload) {
		return nil, false
	}
	return payload[:len(payload)-padding], true
}

func decodeAuthority(block []byte) (string, bool, error) {
	decoder := hpack.NewDecoder(4096, nil)
	decoder.SetMaxStringLength(maxRequestHead)
	fields, err := decoder.DecodeFull(block)
	if err != nil {
		return "", true, errRequestHead
	}
	for _, name := range []string{":authority", "host"} {
		i := slices.IndexFunc(fields, func(f hpack.HeaderField) bool { return f.Name == name })
		if i >= 0 && fields[i].Value != "" {
			return fields[i].Value, true, nil
		}
	}
	return "", true, errRequestHead
}

// hostOf returns the host of an authority, in lower case, or nothing where it has none that is valid:
// a name, an IPv4 address, or an IPv6 address without brackets.
func hostOf(authority string) string {
	host := strings.ToLower(authority)
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, after, closed := strings.Cut(inner, "]")
		if a, err := netip.ParseAddr(inner); !closed || err != nil || !a.Is6() || after != "" && !isPort(after) {
			return ""
		}
		return inner
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		if !isPort(host[i:]) {
			return ""
		}
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	if len(host) > 253 || !allOf(host, isDomainByte) {
		return ""
	}
	return host
}

// isPort tells whether a text is a colon with a port, which may be empty.
func isPort(text string) bool {
	return text[0] == ':' && len(text) <= 6 && allOf(text[1:], func(c byte) bool { return '0' <= c && c <= '9' })
}
