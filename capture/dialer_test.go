package capture

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshbridge/identity/identitytest"
	"meshbridge/translate"
)

// accepting listens, and closes what it accepts after so many bytes have come, which it returns.
func accepting(t *testing.T, network, address string, bytes int) (net.Addr, <-chan string) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan string, 1)
	go func() {
		defer close(came)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		text := make([]byte, bytes)
		if _, err := io.ReadFull(conn, text); err == nil {
			came <- string(text)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-came
	})
	return l.Addr(), came
}

func TestTheProcessItselfConnectsToEndpoints(t *testing.T) {
	t.Parallel()
	d := NewDialer(nil, slog.New(slog.DiscardHandler))
	for name, c := range map[string]struct {
		network, address string
		endpoint         func(net.Addr) *translate.OverlayEndpoint
		want             string // what comes first
	}{
		"by address": {"tcp", "127.0.0.1:0", func(a net.Addr) *translate.OverlayEndpoint {
			return &translate.OverlayEndpoint{Target: netip.MustParseAddrPort(a.String())}
		}, "hello"},
		"by name": {"tcp", "127.0.0.1:0", func(a net.Addr) *translate.OverlayEndpoint {
			return &translate.OverlayEndpoint{Name: strings.Replace(a.String(), "127.0.0.1", "localhost", 1)}
		}, "hello"},
		"by path": {"unix", filepath.Join(t.TempDir(), "socket"), func(a net.Addr) *translate.OverlayEndpoint {
			return &translate.OverlayEndpoint{Path: a.String()}
		}, "hello"},
		"with the PROXY protocol": {"tcp", "127.0.0.1:0", func(a net.Addr) *translate.OverlayEndpoint {
			return &translate.OverlayEndpoint{Target: netip.MustParseAddrPort(a.String()), ProxyProtocol: 1}
		}, "PROXY"},
	} {
		address, came := accepting(t, c.network, c.address, len(c.want))
		conn, err := d.Dial(t.Context(), c.endpoint(address), "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, _ = io.WriteString(conn, "hello")
		if got := <-came; got != c.want {
			t.Errorf("%s: %q has come, want %q", name, got, c.want)
		}
		conn.Close()
	}
}

func TestTheProcessItselfWaitsForNoHandshakeForLong(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	d := NewDialer(identitytest.NewSource(ca.Identity(t, idA)), slog.New(slog.DiscardHandler))
	address, _ := accepting(t, "tcp", "127.0.0.1:0", 1<<20) // which says nothing
	conn, err := d.Dial(t.Context(), &translate.OverlayEndpoint{
		Target: netip.MustParseAddrPort(address.String()), TLS: meshTLS(), ConnectTimeout: 10 * time.Millisecond,
	}, "")
	if err == nil || conn != nil || errors.Is(err, ErrMissingCredential) {
		t.Errorf("connection %v, error %v", conn, err)
	}
}

func TestTheProcessItselfHasNoPlainTextForEndpointsWithTLS(t *testing.T) {
	t.Parallel()
	address, came := accepting(t, "tcp", "127.0.0.1:0", 1)
	_, err := NewDialer(nil, slog.New(slog.DiscardHandler)).Dial(t.Context(),
		&translate.OverlayEndpoint{Target: netip.MustParseAddrPort(address.String()), TLS: meshTLS()}, "")
	if !errors.Is(err, ErrMissingCredential) {
		t.Errorf("error %v", err)
	}
	if text, ok := <-came; ok {
		t.Errorf("the endpoint got %q", text)
	}
}
