package capture

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"meshbridge/translate"
)

// What is kept of idle connections to the destinations behind one address of the overlay.
const (
	forwardIdleConns        = 1024
	forwardIdleConnsPerHost = 64
	forwardIdleConnTimeout  = 90 * time.Second
)

// forwardPools sends requests on to their destinations, over connections that are kept for others to
// the same one.
type forwardPools struct {
	server   *Server
	endpoint *translate.OverlayEndpoint
	http1    *http.Transport
	http2    *http.Transport // unencrypted, for gRPC
	proxy    *httputil.ReverseProxy
	retired  atomic.Bool
}

func (s *Server) newPools(of *translate.OverlayEndpoint) *forwardPools {
	p := &forwardPools{server: s, endpoint: of}
	var one, two http.Protocols
	one.SetHTTP1(true)
	two.SetUnencryptedHTTP2(true)
	p.http1, p.http2 = p.transport(speaksHTTP1, &one), p.transport(speaksHTTP2, &two)
	p.proxy = &httputil.ReverseProxy{
		Rewrite:       p.rewrite,
		Transport:     p,
		FlushInterval: -1, // each write of the server's is one of ours
		BufferPool:    &forwardBuffers{},
		ErrorLog:      slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ErrorHandler:  p.refuse,
	}
	return p
}

func (p *forwardPools) transport(speaks protocol, protocols *http.Protocols) *http.Transport {
	return &http.Transport{
		// TLS is not the transport's business: it would verify, and choose the protocol, by itself.
		DialContext: func(ctx context.Context, _, key string) (net.Conn, error) {
			return p.dial(ctx, key, speaks)
		},
		Protocols:             protocols,
		DisableCompression:    true,
		MaxIdleConns:          forwardIdleConns,
		MaxIdleConnsPerHost:   forwardIdleConnsPerHost,
		IdleConnTimeout:       forwardIdleConnTimeout,
		ExpectContinueTimeout: time.Second,
	}
}

// retire closes idle connections. APISIX may go on with requests over connections that it has; when one
// of those ends, so do the connections that were kept for it.
func (p *forwardPools) retire() {
	p.retired.Store(true)
	p.http1.CloseIdleConnections()
	p.http2.CloseIdleConnections()
}

// forward serves a request.
func (p *forwardPools) forward(w http.ResponseWriter, r *http.Request) {
	if _, err := p.destinationOf(r); err != nil {
		p.refuse(w, r, err)
		return
	}
	// With HTTP/1, net/http would read the whole request before the first byte of a response. HTTP/2
	// needs no such leave.
	_ = http.NewResponseController(w).EnableFullDuplex()
	p.proxy.ServeHTTP(w, r)
}

// RoundTrip sends a request to the destination in its URL.
func (p *forwardPools) RoundTrip(r *http.Request) (*http.Response, error) {
	if isGRPC(r.Header.Get("Content-Type")) {
		return p.http2.RoundTrip(r)
	}
	return p.http1.RoundTrip(r)
}

func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(contentType), "application/grpc")
	return ok && (rest == "" || strings.ContainsRune("+; ", rune(rest[0])))
}

// rewrite leaves a request as it is, where httputil would not, and sets its destination.
func (p *forwardPools) rewrite(r *httputil.ProxyRequest) {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Proxy-Authorization"} {
		if values, ok := r.In.Header[name]; ok {
			r.Out.Header[name] = values
		}
	}
	r.Out.URL.Scheme, r.Out.URL.RawQuery = "http", r.In.URL.RawQuery
	if target := r.In.RequestURI; strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "//") {
		r.Out.URL.Opaque, r.Out.URL.RawQuery, r.Out.URL.ForceQuery = target, "", false // to the letter
	}
	r.Out.Trailer = r.In.Trailer                      // to be filled when the body has been read
	if to, err := p.destinationOf(r.In); err == nil { // forward has refused those without
		r.Out.URL.Host = to.key()
	}
	r.Out.Header.Del(translate.OriginalDestinationHeader)
}

// destination is where a request goes. It is what connections are kept by.
type destination struct {
	address string // "host:port" to connect to
	host    string // the name for TLS, where that is the request's
}

// key is the destination as the host of a URL: a Transport keeps connections by that.
func (d destination) key() string { return hex.EncodeToString([]byte(d.address + " " + d.host)) }

// destinationFrom reads a key that a Transport has given a port.
func destinationFrom(key string) (destination, error) {
	key, _, _ = strings.Cut(key, ":")
	text, err := hex.DecodeString(key)
	if err != nil {
		return destination{}, err
	}
	var d destination
	d.address, d.host, _ = strings.Cut(string(text), " ")
	return d, nil
}

// errDestination tells that a request does not say where to, or somewhere it may not go.
var errDestination = errors.New("the request has no destination")

func (p *forwardPools) destinationOf(r *http.Request) (destination, error) {
	var to destination
	host := hostOf(r.Host)
	if t := p.endpoint.TLS; t != nil && (t.AutoServerName || t.AutoSAN) {
		to.host = host
	}
	if p.endpoint.Dynamic {
		if host == "" {
			return to, fmt.Errorf("%w: host %q is not valid", errDestination, r.Host)
		}
		port := strconv.Itoa(int(p.endpoint.DynamicPort))
		if _, explicit, err := net.SplitHostPort(r.Host); err == nil && explicit != "" {
			port = explicit
		}
		to.address = net.JoinHostPort(host, port)
		return to, nil
	}
	values := r.Header.Values(translate.OriginalDestinationHeader)
	if len(values) != 1 {
		return to, fmt.Errorf("%w: it has %d headers %s", errDestination, len(values), translate.OriginalDestinationHeader)
	}
	address, err := parseDestination(values[0])
	if err != nil {
		return to, fmt.Errorf("%w: %s: %w", errDestination, translate.OriginalDestinationHeader, err)
	}
	to.address = address.String()
	return to, nil
}

// parseDestination reads "address:port" as nginx's variables write it: IPv6 without brackets.
func parseDestination(text string) (netip.AddrPort, error) {
	if to, err := netip.ParseAddrPort(text); err == nil && to.Port() != 0 {
		return netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), nil
	}
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return netip.AddrPort{}, fmt.Errorf("%q has no port", text)
	}
	address, err := netip.ParseAddr(text[:i])
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q has no address", text)
	}
	port, err := strconv.ParseUint(text[i+1:], 10, 16)
	if err != nil || port == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q has no port", text)
	}
	return netip.AddrPortFrom(address.Unmap(), uint16(port)), nil
}

// errConnect tells that a destination could not be connected to.
var errConnect = errors.New("cannot connect")

func (p *forwardPools) dial(ctx context.Context, key string, speaks protocol) (net.Conn, error) {
	to, err := destinationFrom(key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withConnectTimeout(ctx, p.endpoint.ConnectTimeout)
	defer cancel()
	source := p.endpoint.Source
	if address, err := netip.ParseAddrPort(to.address); err == nil {
		source = sourceFor(address.Addr(), source, p.endpoint.OtherSource)
	}
	conn, err := p.server.dialChecked(ctx, to.address, source)
	if err != nil {
		return nil, fmt.Errorf("%w to %s: %w", errConnect, to.address, err)
	}
	if p.endpoint.TLS == nil {
		return conn, nil
	}
	conn, err = p.server.originate(ctx, conn, p.endpoint.TLS,
		origination{cluster: p.endpoint.Cluster, endpoint: to.address, protocol: speaks, host: to.host})
	if err != nil {
		return nil, fmt.Errorf("%w to %s: TLS: %w", errConnect, to.address, err)
	}
	return conn, nil
}

// refuse answers a request that has got no response. As with Envoy, a destination that cannot be
// reached, or goes away, is a 503.
func (p *forwardPools) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status, why := http.StatusServiceUnavailable, "response"
	switch {
	case errors.Is(err, errDestination), errors.Is(err, errReserved):
		status, why = http.StatusBadGateway, "destination"
	case errors.Is(err, errConnect):
		why = "connect"
	}
	p.server.failedOverlay(r.Context(), why, err, slog.String("cluster", p.endpoint.Cluster))
	http.Error(w, "meshbridge: "+err.Error(), status)
}

// forwardBuffers are the buffers through which bodies pass.
type forwardBuffers struct{ pool sync.Pool }

const forwardBufferSize = 32 << 10

// Get returns a buffer.
func (b *forwardBuffers) Get() []byte {
	if buffer, ok := b.pool.Get().(*[forwardBufferSize]byte); ok {
		return buffer[:]
	}
	return make([]byte, forwardBufferSize)
}

// Put takes a buffer back.
func (b *forwardBuffers) Put(buffer []byte) { b.pool.Put((*[forwardBufferSize]byte)(buffer)) }

// errReserved tells that a destination is a port of this process or of APISIX, which would come back.
var errReserved = errors.New("the destination is a port of the bridge or of APISIX")

// dialChecked connects to "host:port", but to no port of our own on this host.
func (s *Server) dialChecked(ctx context.Context, address string, source netip.Addr) (net.Conn, error) {
	conn, err := dialName(ctx, address, source)
	if err != nil {
		return nil, err
	}
	// Only now is it known which address a name had, and whether that is one of this host.
	from, to := addrPort(conn.LocalAddr()), addrPort(conn.RemoteAddr())
	reserved := slices.ContainsFunc(s.reserved, func(r translate.PortRange) bool { return r.First <= to.Port() && to.Port() <= r.Last })
	if reserved && (to.Addr() == from.Addr() || from.Addr().IsLoopback()) {
		_ = conn.Close()
		return nil, errReserved
	}
	return conn, nil
}
