//go:build linux

package status

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"meshbridge/capture/netnstest"
)

// In a pod whose address is of IPv6, istio-init has given the loopback interface the address ::6.
func TestProbesOfPodsWithIPv6ComeFromTheProxysAddress(t *testing.T) {
	if !netnstest.Run(t) {
		return
	}
	netnstest.Configure(t, "ip address add fd00::10/128 dev lo nodad", "ip address add ::6/128 dev lo nodad")
	l, err := net.Listen("tcp", "[fd00::10]:0")
	if err != nil {
		t.Fatal(err)
	}
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RemoteAddr)
	})}
	go func() { _ = app.Serve(l) }()
	t.Cleanup(func() { _ = app.Close() })
	_, number, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := serve(t, Config{
		PodIP: netip.MustParseAddr("fd00::10"),
		Probes: probes(t, `{
			"/app-health/app/readyz": {"httpGet": {"port": `+number+`}, "timeoutSeconds": 30},
			"/app-health/app/livez": {"tcpSocket": {"port": `+number+`}, "timeoutSeconds": 30}
		}`),
	})
	if code, body := p.get("/app-health/app/readyz"); code != http.StatusOK || !strings.HasPrefix(body, "[::6]:") {
		t.Errorf("%d, and the probe comes from %s: ip6tables would send it to capture", code, body)
	}
	if code, body := p.get("/app-health/app/livez"); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
}
