package capture

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// http2Head returns what a client sends first: preface, settings, and a request whose header block is
// cut into pieces.
func http2Head(tb testing.TB, pieces int, padded bool, fields ...string) []byte {
	tb.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		if err := encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			tb.Fatal(err)
		}
	}
	b := bytes.NewBufferString(http2.ClientPreface)
	framer := http2.NewFramer(b, nil)
	headers := http2.HeadersFrameParam{StreamID: 1}
	if padded {
		headers.PadLength, headers.Priority = 7, http2.PriorityParam{Weight: 3}
	}
	rest := block.Bytes()
	next := func() []byte {
		piece := rest[:len(rest)/pieces]
		rest, pieces = rest[len(piece):], pieces-1
		return piece
	}
	headers.BlockFragment = next()
	headers.EndHeaders = pieces == 0
	for _, err := range []error{framer.WriteSettings(), framer.WriteWindowUpdate(0, 100), framer.WriteHeaders(headers)} {
		if err != nil {
			tb.Fatal(err)
		}
	}
	for pieces > 0 {
		piece := next()
		if err := framer.WriteContinuation(1, pieces == 0, piece); err != nil {
			tb.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestHostOfTheFirstRequest(t *testing.T) {
	t.Parallel()
	request := func(lines ...string) []byte { return []byte(strings.Join(lines, "\r\n") + "\r\n\r\n") }
	for name, test := range map[string]struct {
		bytes []byte
		want  requestHead
	}{
		"HTTP/1.1":            {request("GET / HTTP/1.1", "A: b", "Host: www.Example.com"), requestHead{speaksHTTP1, "www.example.com"}},
		"port":                {request("POST /x HTTP/1.1", "hOST:\t a.b:8443 "), requestHead{speaksHTTP1, "a.b"}},
		"absolute":            {request("GET http://a.b:80/c HTTP/1.1", "Host: other"), requestHead{speaksHTTP1, "a.b"}},
		"address":             {request("GET / HTTP/1.1", "Host: 10.0.0.1:80"), requestHead{speaksHTTP1, "10.0.0.1"}},
		"IPv6":                {request("GET / HTTP/1.1", "Host: [2001:DB8::1]:80"), requestHead{speaksHTTP1, "2001:db8::1"}},
		"final dot":           {request("GET / HTTP/1.1", "Host: a.b."), requestHead{speaksHTTP1, "a.b"}},
		"URL in the path":     {request("GET /http://x/ HTTP/1.1", "Host: a.b"), requestHead{speaksHTTP1, "a.b"}},
		"HTTP/2":              {http2Head(t, 1, false, ":method", "POST", ":authority", "A.b:50051"), requestHead{speaksHTTP2, "a.b"}},
		"HTTP/2 in pieces":    {http2Head(t, 3, false, ":authority", "a.b", "x", strings.Repeat("y", 300)), requestHead{speaksHTTP2, "a.b"}},
		"HTTP/2 with padding": {http2Head(t, 1, true, ":authority", "a.b"), requestHead{speaksHTTP2, "a.b"}},
		"HTTP/2 with host":    {http2Head(t, 1, false, ":path", "/", "host", "a.b"), requestHead{speaksHTTP2, "a.b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := range test.bytes {
				if head, done, err := readRequestHead(test.bytes[:n]); done || err != nil {
					t.Fatalf("done after %d of %d bytes: %+v, %v", n, len(test.bytes), head, err)
				}
			}
			head, done, err := readRequestHead(append(test.bytes, "body"...))
			if !done || err != nil || head != test.want {
				t.Errorf("got %+v, %t, %v", head, done, err)
			}
		})
	}
}

func TestWhatIsNoRequest(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no host":            "GET / HTTP/1.1\r\n\r\n",
		"two hosts":          "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"empty host":         "GET / HTTP/1.1\r\nHost:\r\n\r\n",
		"host with a space":  "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
		"host with a slash":  "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
		"bad port":           "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
		"unclosed bracket":   "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
		"no version":         "GET /\r\nHost: a\r\n\r\n",
		"garbage":            "\x16\x03\x01\r\n\r\n",
		"data first":         http2.ClientPreface + "\x00\x00\x00\x09\x04\x00\x00\x00\x01",
		"frame of 16 MiB":    http2.ClientPreface + "\xff\xff\xff\x01\x04\x00\x00\x00\x01",
		"padding too long":   http2.ClientPreface + "\x00\x00\x02\x01\x0c\x00\x00\x00\x01\x09\x00",
		"no priority":        http2.ClientPreface + "\x00\x00\x02\x01\x24\x00\x00\x00\x01\x00\x00",
		"bad header block":   http2.ClientPreface + "\x00\x00\x01\x01\x04\x00\x00\x00\x01\xff",
		"HTTP/2 without one": string(http2Head(t, 1, false, ":path", "/")),
	} {
		if head, done, err := readRequestHead([]byte(text)); !done || !errors.Is(err, errRequestHead) {
			t.Errorf("%s: %+v, %t, %v", name, head, done, err)
		}
	}
}

// FuzzRequestHead checks that a verdict about the first bytes does not change when more of them arrive,
// and that a host is one that may be sent as a server name.
func FuzzRequestHead(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a.b:80\r\n\r\n"), uint(10))
	f.Add(http2Head(f, 2, true, ":authority", "a.b", "x", "y"), uint(60))
	f.Add([]byte("PRI * HTTP/1.1\r\nHost: [::1]\r\n\r\n"), uint(3))
	f.Fuzz(func(t *testing.T, b []byte, n uint) {
		head, done, err := readRequestHead(b)
		first, firstDone, firstErr := readRequestHead(b[:n%uint(len(b)+1)])
		if firstDone && (!done || head != first || (err == nil) != (firstErr == nil)) {
			t.Fatalf("%+v, %v and then %+v, %t, %v", first, firstErr, head, done, err)
		}
		if done && err == nil && (head.host == "" || hostOf(head.host) != head.host && !strings.Contains(head.host, ":")) {
			t.Fatalf("host %q", head.host)
		}
	})
}
