//go:build linux

package capture_test

import (
	"net"
	"net/netip"
	"testing"

	"meshbridge/capture"
	"meshbridge/capture/netnstest"
	"meshbridge/translate"
)

func TestTheKernelTellsOriginalDestinations(t *testing.T) {
	if !netnstest.Run(t, "iptables", "ip6tables") {
		return
	}
	netnstest.Configure(t,
		"ip address add 10.9.8.7/32 dev lo",
		"ip address add 2001:db8::7/128 dev lo nodad",
		"iptables -t nat -A OUTPUT -p tcp --dport 7777 -j REDIRECT --to-ports 15001",
		"ip6tables -t nat -A OUTPUT -p tcp --dport 7777 -j REDIRECT --to-ports 15001",
	)
	apisix := serve(t, true, echo)
	f := start(t, capture.Config{
		HTTP:                apisix.addr,
		Outbound:            []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:15001"), netip.MustParseAddrPort("[::]:15001")},
		OriginalDestination: capture.OriginalDestination,
	}, virtual(translate.Outbound, toHTTP("redirected")))
	f.awaitMetric(3, "listeners", "state", "open") // and the harness's own
	for _, to := range []string{"10.9.8.7:7777", "[2001:db8::7]:7777"} {
		conn, err := net.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		exchange(t, conn, "hello")
		if got := (<-apisix.headers).destination.String(); got != to {
			t.Errorf("original destination %s, want %s", got, to)
		}
	}
	// One that was not redirected was going to the listener itself, which would be a loop.
	if direct, err := net.Dial("tcp", "127.0.0.1:15001"); err == nil {
		defer direct.Close()
		if !isReset(direct) {
			t.Error("a connection to the listener itself is served")
		}
	}
	f.awaitMetric(1, "refused_total", "reason", "loop", "direction", "outbound")
}

func TestTransparentListenersSeeWhereConnectionsWereGoing(t *testing.T) {
	if !netnstest.Run(t, "iptables") {
		return
	}
	netnstest.Configure(t,
		"ip address add 10.9.8.7/32 dev lo",
		"ip rule add fwmark 1 lookup 100",
		"ip route add local default dev lo table 100",
	)
	netnstest.TryConfigure(t, "iptables -t mangle -A PREROUTING -p tcp -d 10.9.8.7 --dport 7777 -j TPROXY --tproxy-mark 1 --on-port 15006")
	apisix := serve(t, true, echo)
	l := virtual(translate.Inbound, toHTTP("transparent"))
	l.Transparent = true
	f := start(t, capture.Config{HTTP: apisix.addr, Inbound: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:15006")}}, l)
	f.awaitMetric(2, "listeners", "state", "open") // and the harness's own
	conn, err := net.Dial("tcp", "10.9.8.7:7777")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	exchange(t, conn, "hello")
	if got := (<-apisix.headers).destination.String(); got != "10.9.8.7:7777" {
		t.Errorf("original destination %s, want 10.9.8.7:7777", got)
	}
}
