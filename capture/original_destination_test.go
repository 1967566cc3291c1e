//go:build linux

package capture_test

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"meshbridge/capture"
	"meshbridge/translate"
)

// inNamespace tells a test that it runs in a network namespace of its own.
const inNamespace = "MESHBRIDGE_TEST_NAMESPACE"

func TestTheKernelTellsOriginalDestinations(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		// Redirection needs iptables, and a namespace of its own to leave this host alone.
		for _, program := range []string{"unshare", "ip", "iptables", "ip6tables"} {
			if _, err := exec.LookPath(program); err != nil {
				t.Skip(err)
			}
		}
		if err := exec.Command("unshare", "-n", "true").Run(); err != nil {
			t.Skip("no network namespace:", err)
		}
		cmd := exec.Command("unshare", "-n", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		return
	}
	for _, args := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "address", "add", "10.9.8.7/32", "dev", "lo"},
		{"ip", "address", "add", "2001:db8::7/128", "dev", "lo", "nodad"},
		{"iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "7777", "-j", "REDIRECT", "--to-ports", "15001"},
		{"ip6tables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "7777", "-j", "REDIRECT", "--to-ports", "15001"},
	} {
		if output, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, output)
		}
	}
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
