package main

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"

	"meshbridge/capture"
	"meshbridge/translate"
)

// serveCapture relays connections as if they had been redirected on their way to a backend.
func serveCapture(ctx context.Context, listen, to, certificate string) error {
	address, err := netip.ParseAddrPort(listen)
	if err != nil {
		return err
	}
	backend, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	server, err := capture.New(capture.Config{
		Outbound:            []netip.AddrPort{address},
		OriginalDestination: func(net.Conn) (netip.AddrPort, error) { return backend, nil },
		Observer:            nobody{},
	})
	if err != nil {
		return err
	}
	var terminate *translate.DownstreamTLS
	if certificate != "" {
		terminate = &translate.DownstreamTLS{Credential: translate.Credential{CertificateFile: certificate, KeyFile: certificate}}
	}
	server.SetListeners([]*translate.Listener{{
		Name: "virtualOutbound", Direction: translate.Outbound, Bind: true, OriginalDestination: true,
		Chains: []*translate.FilterChain{{TLS: terminate, TCP: &translate.TCPProxy{Clusters: []translate.TCPCluster{{
			Name: "PassthroughCluster", OriginalDestination: new(translate.OriginalDestination),
		}}}}},
	}})
	return server.Run(ctx)
}

// nobody is told of connections, so that what it takes to tell is measured, too.
type nobody struct{}

func (nobody) Opened(*capture.Connected) {}
func (nobody) Closed(*capture.Connected) {}

// serveBackend answers requests for as long as clients want.
func serveBackend(ctx context.Context, listen string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil
		}
		serving.Go(func() {
			defer func() { _ = conn.Close() }()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			answer(conn)
		})
	}
}

// answer answers the requests of a connection, which have no bodies.
func answer(conn net.Conn) {
	response := []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	r := bufio.NewReader(conn)
	for last := false; !last; {
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(bytes.TrimSpace(line)) == 0 {
				break
			}
			last = last || bytes.EqualFold(bytes.TrimSpace(line), []byte("Connection: close"))
		}
		if _, err := conn.Write(response); err != nil {
			return
		}
	}
}
