package pods

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// The network: a hub with istiod, and pods with an address each, in network namespaces of their own.
const (
	hubAddress = "10.77.0.1"
	netmask    = "/16"
	proxyUser  = "1337" // whose connections Istio's rules leave alone
	appUser    = "1000"
)

// requireRoot skips a test without the rights to make network namespaces, unless the environment says
// that it must run.
func requireRoot(t testing.TB) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root"
	}
	for _, program := range []string{"ip", "iptables", "iptables-restore", "setpriv"} {
		if _, err := exec.LookPath(program); err != nil && missing == "" {
			missing = program
		}
	}
	switch {
	case missing == "":
	case os.Getenv("REQUIRE_NETNS") != "":
		t.Fatalf("needs %s", missing)
	default:
		t.Skipf("needs %s", missing)
	}
}

// command runs a program to its end.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(context.Background(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// network is the hub.
type network struct {
	name string
	pods int
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	requireRoot(t)
	n := &network{name: fmt.Sprintf("mb%d", os.Getpid())}
	n.namespace(t, n.name)
	n.hub(t, "ip", "link", "add", "br0", "type", "bridge")
	n.hub(t, "ip", "addr", "add", hubAddress+netmask, "dev", "br0")
	n.hub(t, "ip", "link", "set", "br0", "up")
	return n
}

func (n *network) namespace(t testing.TB, name string) {
	t.Helper()
	command(t, "ip", "netns", "add", name)
	t.Cleanup(func() { command(t, "ip", "netns", "del", name) })
	command(t, "ip", "-n", name, "link", "set", "lo", "up")
}

// hub runs a command in the hub.
func (n *network) hub(t testing.TB, args ...string) {
	command(t, "ip", append([]string{"netns", "exec", n.name}, args...)...)
}

// pod is a network namespace with an address.
type pod struct {
	name, address string
	address6      string // empty without IPv6
	netns         string
	namespace     string // Kubernetes'
	// metadata is that of its proxy, beyond what each has, and certificateTTL how long the certificates
	// that the proxy asks for live; empty is Istio's default.
	metadata       map[string]any
	certificateTTL string
}

func (n *network) pod(t testing.TB, name string) *pod {
	t.Helper()
	n.pods++
	p := &pod{name: name, address: fmt.Sprintf("10.77.1.%d", n.pods), netns: n.name + name, namespace: "default", metadata: map[string]any{}}
	n.namespace(t, p.netns)
	link := fmt.Sprintf("veth%d", n.pods)
	command(t, "ip", "-n", n.name, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", p.netns)
	command(t, "ip", "-n", n.name, "link", "set", link, "master", "br0", "up")
	command(t, "ip", "-n", p.netns, "addr", "add", p.address+netmask, "dev", "eth0")
	command(t, "ip", "-n", p.netns, "link", "set", "eth0", "up")
	command(t, "ip", "-n", p.netns, "route", "add", "default", "via", hubAddress)
	return p
}

// dualStack gives the pod an address of IPv6.
func (p *pod) dualStack(t testing.TB) {
	t.Helper()
	p.address6 = "fd77::1:" + p.address[strings.LastIndexByte(p.address, '.')+1:]
	command(t, "ip", "-n", p.netns, "addr", "add", p.address6+"/64", "dev", "eth0", "nodad")
	command(t, "ip", "-n", p.netns, "route", "add", "default", "via", "fd77::1")
}

// as returns the command line of a program in the pod, as a user.
func (p *pod) as(user, program string, args ...string) []string {
	return append([]string{"netns", "exec", p.netns, "setpriv", "--reuid", user, "--regid", user, "--clear-groups", program}, args...)
}

// start runs a program in the pod until the test ends.
func (p *pod) start(t testing.TB, user, program string, args ...string) *harness.Process {
	t.Helper()
	return harness.Start(t, "/sbin/ip", p.as(user, program, args...)...)
}

// redirect applies the rules that Istio's injected init container applies.
func (p *pod) redirect(t testing.TB, args ...string) {
	t.Helper()
	line := []string{
		"netns", "exec", p.netns, programs.iptables, "-p", "15001", "-z", "15006", "-u", proxyUser,
		"-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020",
	}
	if p.address6 != "" {
		line = append(line, "--dual-stack")
	}
	command(t, "ip", append(line, args...)...)
}
