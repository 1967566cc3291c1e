package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"meshbridge/translate/apisix"
)

type connKey struct{}

// serveHTTP serves the two HTTP ports.
func (s *standin) serveHTTP(ctx context.Context, group *errgroup.Group) error {
	for _, port := range []struct {
		address string
		tls     bool
	}{{s.http, false}, {s.https, true}} {
		if s.plain && port.tls {
			continue
		}
		l, err := net.Listen("tcp", port.address)
		if err != nil {
			return err
		}
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		protocols.SetUnencryptedHTTP2(!port.tls)
		protocols.SetHTTP2(port.tls)
		server := &http.Server{
			Handler: http.HandlerFunc(s.answer), Protocols: protocols, ReadHeaderTimeout: time.Minute,
			ConnContext: func(ctx context.Context, c net.Conn) context.Context {
				if t, ok := c.(*tls.Conn); ok {
					c = t.NetConn()
				}
				return context.WithValue(ctx, connKey{}, c)
			},
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		}
		l = headerListener{l, s.log, s.plain}
		if port.tls {
			l = tls.NewListener(l, &tls.Config{GetConfigForClient: s.tlsFor})
		}
		group.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		context.AfterFunc(ctx, func() { _ = server.Close() })
	}
	return nil
}

// headerListener accepts connections with a header of the PROXY protocol, or without where they are plain.
type headerListener struct {
	net.Listener
	log   *slog.Logger
	plain bool
}

func (l headerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.plain {
			return direct(conn)
		}
		p, err := accept(conn)
		if err != nil {
			l.log.Warn("HTTP", slog.Any("error", err))
			_ = conn.Close()
			continue
		}
		return p, nil
	}
}

// ssl finds the object of a server name; nil without one.
func (w *world) ssl(name string) *apisix.SSL {
	name = cmp.Or(name, "no-sni.mesh")
	for _, ssl := range w.ssls {
		for _, pattern := range append(slices.Clone(ssl.SNIs), ssl.SNI) {
			suffix, wildcard := strings.CutPrefix(pattern, "*")
			if pattern == name || wildcard && strings.HasSuffix(name, suffix) {
				return ssl
			}
		}
	}
	return nil
}

// tlsFor demands a client's certificate where the ssl object does. (APISIX lets clients without one finish
// the handshake, and answers 400 then.)
func (s *standin) tlsFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	ssl := s.world.Load().ssl(hello.ServerName)
	if ssl == nil {
		return nil, fmt.Errorf("no ssl for %q", hello.ServerName)
	}
	pair, err := tls.X509KeyPair([]byte(ssl.Cert), []byte(ssl.Key))
	config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	if ssl.Client != nil {
		config.ClientCAs, config.ClientAuth = clientAuthorities(ssl), tls.RequireAndVerifyClientCert
		if ssl.Client.SkipMTLSURIRegex != nil {
			config.ClientAuth = tls.RequestClientCert
		}
	}
	return config, err
}

func clientAuthorities(ssl *apisix.SSL) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(ssl.Client.CA))
	return pool
}

// clientVerify is nginx's $ssl_client_verify.
func (s *standin) clientVerify(state *tls.ConnectionState) string {
	ssl := s.world.Load().ssl(state.ServerName)
	if len(state.PeerCertificates) == 0 || ssl == nil || ssl.Client == nil {
		return "NONE"
	}
	intermediates := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: clientAuthorities(ssl), Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "FAILED:" + err.Error()
	}
	return "SUCCESS"
}

// answer does what the model says about a request.
func (s *standin) answer(w http.ResponseWriter, r *http.Request) {
	conn, ok := r.Context().Value(connKey{}).(*proxied)
	if !ok {
		http.Error(w, "no header", http.StatusInternalServerError)
		return
	}
	request := s.request(r, conn)
	evaluator := s.world.Load().evaluator
	d := evaluator.Evaluate(request)
	s.log.Debug("request", slog.String("chain", conn.chain()), slog.String("host", r.Host), slog.String("uri", r.RequestURI),
		slog.String("route", d.RouteID), slog.Int("status", d.Status), slog.String("by", d.AnsweredBy), slog.String("upstream", d.UpstreamID))
	if d.Delay > 0 {
		select {
		case <-time.After(time.Duration(d.Delay * float64(time.Second))):
		case <-r.Context().Done():
			return
		}
	}
	if d.Status != 0 || d.AnsweredBy != "" {
		maps.Copy(w.Header(), canonical(d.Response))
		if d.Location != "" {
			w.Header().Set("Location", d.Location)
		}
		w.Header().Set("X-Stand-In", d.AnsweredBy)
		w.WriteHeader(cmp.Or(d.Status, http.StatusBadRequest))
		_, _ = io.WriteString(w, d.Body)
		return
	}
	s.forward(w, r, conn, evaluator, request, d)
}

// request is a request for the model.
func (s *standin) request(r *http.Request, conn *proxied) apisix.Request {
	vars := conn.vars()
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	vars["request_id"] = hex.EncodeToString(id)
	vars["server_port"] = portOf(conn.LocalAddr())
	// The map of the rendered configuration.
	before := strings.Join(r.Header.Values("X-Forwarded-Client-Cert"), ", ")
	switch element := vars["proxy_protocol_tlv_0xe2"]; {
	case element == "":
		vars["meshbridge_xfcc"] = ""
	case before == "":
		vars["meshbridge_xfcc"] = element
	default:
		vars["meshbridge_xfcc"] = before + "," + element
	}
	request := apisix.Request{
		Method: r.Method, Host: r.Host, URI: originForm(r), Headers: r.Header, RemoteAddr: conn.source.Addr().String(), Vars: vars,
	}
	if r.TLS != nil {
		request.Scheme = "https"
		vars["ssl_server_name"], vars["ssl_client_verify"] = r.TLS.ServerName, s.clientVerify(r.TLS)
	}
	return request
}

// originForm is nginx's $request_uri: what clients of an HTTP proxy say before the path is not in it.
func originForm(r *http.Request) string {
	if r.URL.IsAbs() {
		return r.URL.RequestURI()
	}
	return r.RequestURI
}

func portOf(a net.Addr) string {
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return ""
	}
	return port
}

// forward sends a request to the first node that can be connected to.
func (s *standin) forward(w http.ResponseWriter, r *http.Request, conn *proxied, evaluator *apisix.Evaluator, request apisix.Request, d apisix.Decision) {
	nodes := nodesOf(d.Upstream)
	if d.Upstream == nil || len(nodes) == 0 {
		http.Error(w, "no nodes", http.StatusServiceUnavailable)
		return
	}
	target, err := url.ParseRequestURI(d.URI)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	protocols := new(http.Protocols)
	if d.Upstream.Scheme == "grpc" {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
	}
	transport := &http.Transport{
		Protocols: protocols, DisableKeepAlives: d.Upstream.Scheme != "grpc", DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var errs []error
			for _, n := range nodes {
				up, err := dialer(conn.chain()).DialContext(ctx, "tcp", net.JoinHostPort(strings.Trim(n.Host, "[]"), strconv.Itoa(n.Port)))
				if err == nil {
					return up, nil
				}
				errs = append(errs, err)
			}
			return nil, errors.Join(errs...)
		},
	}
	defer transport.CloseIdleConnections()
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(out *httputil.ProxyRequest) {
			out.Out.URL = &url.URL{Scheme: "http", Host: "node", Path: target.Path, RawPath: target.RawPath, RawQuery: target.RawQuery}
			out.Out.Host = d.Host
			out.Out.Header = canonical(d.Headers)
			for _, name := range []string{"Connection", "Upgrade", "Te"} {
				if v := out.In.Header.Values(name); v != nil && (name == "Te" || d.Route.EnableWebsocket) {
					out.Out.Header[name] = v
				}
			}
			out.Out.Header.Set("X-Real-Ip", request.RemoteAddr)
			if out.Out.Header.Get("X-Forwarded-Proto") == "" {
				out.Out.Header.Set("X-Forwarded-Proto", cmp.Or(request.Scheme, "http"))
			}
			out.Out.Header["X-Forwarded-For"] = []string{strings.Join(append(out.In.Header.Values("X-Forwarded-For"), request.RemoteAddr), ", ")}
		},
		ModifyResponse: func(a *http.Response) error {
			request.Response = a.Header
			a.Header = canonical(evaluator.Evaluate(request).Response)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			s.log.Warn("upstream", slog.String("id", d.UpstreamID), slog.Any("error", err))
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
		FlushInterval: -1,
	}
	proxy.ServeHTTP(w, r)
}

func canonical(headers map[string][]string) http.Header {
	h := http.Header{}
	for name, values := range headers {
		h[http.CanonicalHeaderKey(name)] = values
	}
	return h
}
