package status

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

const (
	// defaultProbeTimeout is Kubernetes' for a probe that has none.
	defaultProbeTimeout = time.Second
	// maxProbeBody bounds what is passed on of an application's answer, as the kubelet bounds what it reads.
	maxProbeBody = 10 << 10
)

// prober sends on what the kubelet asks of the application. Connections leave from 127.0.0.6, or ::6: to
// Istio's iptables rules they are then of the proxy, and go to the application instead of back to capture.
type prober struct {
	probes  Probes
	host    string // where the application is; empty is this host
	local   netip.Addr
	log     *slog.Logger
	plain   *http.Client
	secured *http.Client // with TLS

	mu      sync.Mutex
	failing map[string]string // why, by path; guarded by mu
}

func newProber(c Config) *prober {
	p := &prober{
		probes: c.Probes, log: c.Logger, failing: map[string]string{},
		host: "localhost", local: netip.AddrFrom4([4]byte{127, 0, 0, 6}),
	}
	if ip := c.PodIP.Unmap(); ip.IsValid() {
		if ip.Is6() && !ip.IsLinkLocalUnicast() {
			p.local = netip.MustParseAddr("::6")
		}
		if !c.ProbeLocalhost {
			p.host = ip.String()
		}
	}
	p.plain, p.secured = p.client(false), p.client(true)
	return p
}

func (p *prober) close() {
	p.plain.CloseIdleConnections()
	p.secured.CloseIdleConnections()
}

// ServeHTTP answers as pilot-agent does: 400 for a probe that there is not, 500 for one that fails without an
// answer of the application, else the application's status.
func (p *prober) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	probe, ok := p.probes[r.URL.Path]
	if !ok {
		writeText(w, http.StatusBadRequest, fmt.Sprintf("there is no probe %s\n", r.URL.Path))
		return
	}
	ctx, cancel := probe.limit(r.Context(), r.URL.Path)
	defer cancel()
	status := http.StatusOK
	var body []byte
	var err error
	switch {
	case probe.HTTPGet != nil:
		status, body, err = p.get(ctx, probe.HTTPGet, r)
	case probe.TCPSocket != nil:
		err = p.connect(ctx, probe.TCPSocket)
	default:
		err = p.check(ctx, probe.GRPC, r.UserAgent())
	}
	if r.Context().Err() != nil {
		return // nobody waits for it
	}
	p.note(r.Context(), r.URL.Path, status, err)
	if err != nil {
		writeText(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// limit bounds what a probe may take.
func (p *Probe) limit(ctx context.Context, path string) (context.Context, context.CancelFunc) {
	timeout := time.Duration(p.TimeoutSeconds) * time.Second
	if timeout == 0 {
		if strings.HasPrefix(path, "/app-lifecycle/") {
			return context.WithCancel(ctx)
		}
		timeout = defaultProbeTimeout
	}
	return context.WithTimeout(ctx, timeout)
}

// note logs a probe that begins to fail, fails for another reason, or succeeds again.
func (p *prober) note(ctx context.Context, path string, status int, err error) {
	why := ""
	switch {
	case err != nil:
		why = err.Error()
	case status >= http.StatusBadRequest:
		why = "HTTP " + strconv.Itoa(status)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.failing[path]
	if why == was {
		return
	}
	if why == "" {
		delete(p.failing, path)
		p.log.InfoContext(ctx, "the application's probe succeeds again", slog.String("path", path))
		return
	}
	p.failing[path] = why
	p.log.WarnContext(ctx, "the application's probe fails", slog.String("path", path), slog.String("reason", why))
}

func (p *prober) address(port Port) string {
	return net.JoinHostPort(p.host, strconv.Itoa(int(port)))
}

func (p *prober) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.local, 0)), Control: lingerShortly}
	return d.DialContext(ctx, network, address)
}

func (p *prober) connect(ctx context.Context, action *TCPSocket) error {
	conn, err := p.dial(ctx, "tcp", p.address(action.Port))
	if err != nil {
		return err
	}
	return conn.Close()
}

func (p *prober) check(ctx context.Context, action *GRPC, userAgent string) error {
	conn, err := grpc.NewClient("passthrough:///"+p.address(action.Port),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return p.dial(ctx, "tcp", address) }),
		grpc.WithUserAgent(userAgent), grpc.WithNoProxy(), grpc.WithDisableServiceConfig())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	request := &grpc_health_v1.HealthCheckRequest{}
	if action.Service != nil {
		request.Service = *action.Service
	}
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, request)
	if err != nil {
		return err
	}
	if s := answer.GetStatus(); s != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("the health service says %s", s)
	}
	return nil
}

// get asks the application over HTTP.
func (p *prober) get(ctx context.Context, action *HTTPGet, r *http.Request) (status int, body []byte, err error) {
	client, scheme := p.plain, "http"
	if action.Scheme == schemeHTTPS {
		client, scheme = p.secured, "https"
	}
	path := action.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+p.address(action.Port)+path, nil)
	if err != nil {
		return 0, nil, err
	}
	request.Header = r.Header.Clone()
	request.Host = hostFor(r, action.Port)
	answer, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(answer.Body, maxProbeBody))
	if err != nil {
		return 0, nil, err
	}
	if isRedirect(answer.StatusCode) {
		// To the kubelet a redirect to another host is a success. Without a Location it cannot be passed on.
		return http.StatusOK, nil, nil
	}
	return answer.StatusCode, body, nil
}

// hostFor is the Host header for the application: what the kubelet sent, which is a name where the probe
// has one, with the port that was asked replaced by the application's.
func hostFor(r *http.Request, theirs Port) string {
	asked, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	name, port, err := net.SplitHostPort(r.Host)
	if !ok || err != nil || port != strconv.Itoa(asked.Port) {
		return r.Host
	}
	return net.JoinHostPort(name, strconv.Itoa(int(theirs)))
}

func isRedirect(status int) bool {
	return status >= http.StatusMultipleChoices && status < http.StatusBadRequest
}

// maxRedirects is the kubelet's limit.
const maxRedirects = 10

// followLocal follows redirects as the kubelet does: to the same host.
func followLocal(r *http.Request, via []*http.Request) error {
	if r.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= maxRedirects {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}
