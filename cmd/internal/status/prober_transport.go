package status

import (
	"crypto/tls"
	"net/http"
	"syscall"
	"time"
)

// client returns one that treats the application as the kubelet does.
func (p *prober) client(secured bool) *http.Client {
	t := &http.Transport{
		DialContext: p.dial,
		// A connection for each probe: one that is kept might be closed just when it is used again.
		DisableKeepAlives:   true,
		DisableCompression:  true, // the headers are the kubelet's
		TLSHandshakeTimeout: 10 * time.Second,
	}
	if secured {
		// The kubelet does not verify: it asks by an address, and only whether somebody answers.
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
		t.ForceAttemptHTTP2 = true
	}
	return &http.Client{Transport: t, CheckRedirect: followLocal}
}

// lingerShortly keeps closed connections from waiting for a minute for packets that come late. The kubelet
// does the same: many probes would otherwise use up the local ports.
func lingerShortly(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// It only saves ports: a probe goes on without.
		_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 1})
	})
}
