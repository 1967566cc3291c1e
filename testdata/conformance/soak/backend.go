package soak

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// Headers by which a backend tells who it is, and by which route a request came to it.
const (
	stampHeader   = "X-Soak"
	backendHeader = "X-Backend"
)

// serveBackends runs the backends of all services until ctx ends. They are there whether they are endpoints
// or not, so that a request that still comes to one that no longer is can be told from one that fails.
func serveBackends(ctx context.Context, group *errgroup.Group, identities []tls.Certificate) error {
	for s := range services {
		var secure *tls.Config
		if s < kubernetes {
			// Whether a client shows a certificate is what capture's own tests are about.
			secure = &tls.Config{
				Certificates: []tls.Certificate{identities[s]}, ClientAuth: tls.RequestClientCert,
				NextProtos: []string{"istio", "istio-http/1.1", "http/1.1", "istio-peer-exchange"}, MinVersion: tls.VersionTLS12,
			}
		}
		for b := range backends {
			name := backendName(s, b)
			web, err := net.Listen("tcp", net.JoinHostPort(backendAddress(s, b), strconv.Itoa(httpPort)))
			if err != nil {
				return err
			}
			server := &http.Server{
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set(backendHeader, name)
					w.Header().Set(stampHeader, r.Header.Get(stampHeader))
				}),
				ReadHeaderTimeout: patience, ErrorLog: log.New(io.Discard, "", 0), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
			}
			context.AfterFunc(ctx, func() { _ = server.Close() })
			group.Go(func() error { return unlessClosed(server.Serve(permissive{web, secure})) })

			raw, err := net.Listen("tcp", net.JoinHostPort(backendAddress(s, b), strconv.Itoa(tcpPort)))
			if err != nil {
				return err
			}
			context.AfterFunc(ctx, func() { _ = raw.Close() })
			group.Go(func() error {
				for {
					conn, err := permissive{raw, secure}.Accept()
					if err != nil {
						return unlessClosed(err)
					}
					go func() {
						defer func() { _ = conn.Close() }()
						_ = conn.SetDeadline(time.Now().Add(patience))
						// The client speaks first, because permissive waits for that.
						if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
							_, _ = io.WriteString(conn, name+"\n")
						}
					}()
				}
			})
		}
	}
	return nil
}

func unlessClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// permissive accepts TLS and plain text, as a sidecar does where mutual TLS is not enforced.
type permissive struct {
	net.Listener
	secure *tls.Config // nil accepts plain text alone
}

func (p permissive) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if err != nil || p.secure == nil {
		return conn, err
	}
	return &sniffed{Conn: conn, secure: p.secure}, nil
}

// sniffed finds out what the client speaks when it is first read from.
type sniffed struct {
	net.Conn
	secure *tls.Config
	spoken net.Conn // what is read from and written to; owned by the reader until the first byte
}

func (c *sniffed) Read(into []byte) (int, error) {
	if c.spoken == nil {
		const handshake = 22
		r := bufio.NewReader(c.Conn)
		first, err := r.Peek(1)
		if err != nil {
			return 0, err
		}
		c.spoken = buffered{c.Conn, r}
		if first[0] == handshake {
			c.spoken = tls.Server(c.spoken, c.secure)
		}
	}
	return c.spoken.Read(into)
}

func (c *sniffed) Write(text []byte) (int, error) {
	if c.spoken == nil {
		return 0, errors.New("written to before it was read from")
	}
	return c.spoken.Write(text)
}

// buffered reads what has been peeked at, too.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (c buffered) Read(into []byte) (int, error) { return c.r.Read(into) }
