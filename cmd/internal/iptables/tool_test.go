//go:build linux

package iptables

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"meshbridge/capture/netnstest"
)

var counters = regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\]`)

// saved is what a program has, without comments and counters.
func saved(t *testing.T, program string) string {
	t.Helper()
	out, err := run(t.Context(), "", program+"-save")
	if err != nil {
		t.Fatal(err)
	}
	return counters.ReplaceAllString(out, "")
}

func TestRulesAreAppliedOnceAndTakenAway(t *testing.T) {
	if !netnstest.Run(t, "iptables", "ip6tables") {
		return
	}
	for _, variant := range []string{NFT, Legacy} {
		t.Run(variant, func(t *testing.T) {
			tool, err := Detect(t.Context(), variant, true, slog.New(slog.DiscardHandler))
			if err != nil {
				if os.Getenv("REQUIRE_NETNS") != "" && variant == NFT {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			// What others have made stays.
			others := "-t nat -A OUTPUT -p tcp --dport 7 -j RETURN"
			netnstest.Configure(t, tool.four+" "+others, tool.six+" "+others)
			before := saved(t, tool.four) + saved(t, tool.six)

			everything := pod()
			everything.IPv6, everything.DropInvalid = true, true
			everything.DNS = &DNS{Port: 15053, Servers: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd96::a")}}
			everything.ExcludedInterfaces, everything.VirtualInterfaces = []string{"eth1"}, []string{"net1"}
			everything.ExcludedOutboundPorts, everything.OutboundPorts = []string{"3306"}, []string{"8000:8080"}
			everything.ExcludedOutboundRanges, everything.ExcludedOwnerGroups = []string{"10.1.0.0/16", "fd01::/16"}, []string{"0"}
			if err := everything.Validate(); err != nil {
				t.Fatal(err)
			}
			v4, v6 := Render(everything)
			apply := func(v4, v6 Rules) string {
				t.Helper()
				if err := tool.Apply(t.Context(), v4, v6); err != nil {
					t.Fatal(err)
				}
				return saved(t, tool.four) + saved(t, tool.six)
			}
			first := apply(v4, v6)
			if second := apply(v4, v6); second != first {
				t.Errorf("the second time, the rules are:\n%s\nand were:\n%s", second, first)
			}
			// Istio's program would find its own rules: each of ours is what was asked for.
			for program, rules := range map[string]Rules{tool.four: v4, tool.six: v6} {
				for _, r := range rules {
					if _, err := run(t.Context(), "", program, append([]string{"-t", r.table, "-C", r.chain}, strings.Fields(r.spec)...)...); err != nil {
						t.Errorf("%s %s: %v", r.table, r.line(), err)
					}
				}
			}
			// Other options leave nothing of the first.
			plain := pod()
			plain.IPv6 = true
			simple4, simple6 := Render(plain)
			shrunk := apply(simple4, simple6)
			for _, gone := range []string{"ISTIO_DROP", "ISTIO_OUTPUT_DNS", "--ctstate", "--zone"} {
				if strings.Contains(shrunk, gone) {
					t.Errorf("%s is left:\n%s", gone, shrunk)
				}
			}
			if err := tool.Remove(t.Context(), v4, v6); err != nil {
				t.Fatal(err)
			}
			after := saved(t, tool.four) + saved(t, tool.six)
			if strings.Contains(after, prefix) || lines(after) != lines(before) {
				t.Errorf("after:\n%s\nbefore:\n%s", after, before)
			}
			if err := tool.Remove(t.Context(), v4, v6); err != nil {
				t.Errorf("nothing to remove: %v", err)
			}
		})
	}
}

// lines are the rules of what was saved.
func lines(text string) string {
	var rules strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "-A") {
			rules.WriteString(line)
		}
	}
	return rules.String()
}

func TestAFailureNamesTheLine(t *testing.T) {
	if !netnstest.Run(t, "iptables", "ip6tables") {
		return
	}
	for _, variant := range []string{NFT, Legacy} {
		tool, err := Detect(t.Context(), variant, false, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Log(err)
			continue
		}
		rules := Rules{
			{table: tableNAT, chain: chainOutput, spec: "-j RETURN"},
			{table: tableNAT, chain: chainOutput, spec: "-p tcp --dport nowhere -j RETURN"},
		}
		err = tool.Apply(t.Context(), rules, nil)
		if err == nil || !strings.Contains(err.Error(), `line 3, "-A OUTPUT -p tcp --dport nowhere -j RETURN"`) || !strings.Contains(err.Error(), "nowhere") {
			t.Errorf("%s: %v", variant, err)
		}
		if rules := lines(saved(t, tool.four)); rules != "" {
			t.Errorf("%s: half of the rules are in force:\n%s", variant, rules)
		}
	}
}

// network makes this namespace a pod with both families, and returns the name of a namespace beside it.
func network(t *testing.T) string {
	t.Helper()
	peer := "mb-iptables-" + strconv.Itoa(os.Getpid())
	netnstest.Configure(t, "ip netns add "+peer)
	t.Cleanup(func() { netnstest.Configure(t, "ip netns del "+peer) })
	netnstest.Configure(t,
		"ip link set lo up", "ip link add eth0 type veth peer name eth0 netns "+peer,
		"ip addr add 10.77.0.1/24 dev eth0", "ip addr add fd77::1/64 dev eth0 nodad", "ip link set eth0 up",
		"ip -n "+peer+" addr add 10.77.0.2/24 dev eth0", "ip -n "+peer+" addr add fd77::2/64 dev eth0 nodad", "ip -n "+peer+" link set eth0 up",
	)
	return peer
}

// echo answers each connection with the name of the listener.
func echo(t *testing.T, network, address string) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(address))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
}

// clientForAll copies the test's binary to where every user may run it.
func clientForAll(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.CreateTemp("", "mb-iptables-client-") //nolint:usetesting // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(file.Name()) })
	_, errWrite := file.Write(data)
	if err := errors.Join(errWrite, file.Chmod(0o755), file.Close()); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}

// dial is what a client is told: a user of this namespace, or of the peer's.
func dial(ctx context.Context, t *testing.T, client, peer string, user uint32, address string) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, client)
	if peer != "" {
		cmd = exec.CommandContext(ctx, "ip", "netns", "exec", peer, client)
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	}
	cmd.Env = append(os.Environ(), dialVariable+"="+address)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestConnectionsAreRedirected(t *testing.T) {
	if !netnstest.Run(t, "iptables", "ip6tables") {
		return
	}
	peer, client := network(t), clientForAll(t)
	tool, err := Detect(t.Context(), "", true, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c := pod()
	c.IPv6 = true
	c.ExcludedOutboundRanges = []string{"10.77.0.9/32"}
	c.ExcludedOutboundPorts = []string{"3306"}
	if err := tool.Apply(t.Context(), first(Render(c)), second(Render(c))); err != nil {
		t.Fatal(err)
	}
	for _, port := range []string{"15001", "15006", "15021", "15008", "3306", "80"} {
		echo(t, "tcp4", "0.0.0.0:"+port)
		echo(t, "tcp6", "[::]:"+port)
	}
	for _, c := range []struct {
		what, peer string
		user       uint32
		to, want   string
	}{
		{"the application calls others", "", 1000, "10.77.0.2:80", ":15001"},
		{"and of IPv6", "", 1000, "[fd77::2]:80", "]:15001"},
		{"the application calls itself by loopback", "", 1000, "127.0.0.1:80", ":80"},
		{"the application calls itself by the pod's address", "", 1000, "10.77.0.1:80", ":80"},
		{"the proxy calls the application by the pod's address", "", 1337, "10.77.0.1:80", ":15006"},
		{"the proxy calls others", "", 1337, "10.77.0.2:81", "refused"},
		{"an excluded range", "", 1000, "10.77.0.9:80", "no route"},
		{"an excluded port", "", 1000, "10.77.0.2:3306", "refused"},
		{"others call the application", peer, 0, "10.77.0.1:80", ":15006"},
		{"and of IPv6", peer, 0, "[fd77::1]:80", "]:15006"},
		{"others call a port where nothing listens", peer, 0, "10.77.0.1:9999", ":15006"},
		{"the kubelet calls the readiness port", peer, 0, "10.77.0.1:15021", ":15021"},
		{"a tunnel", peer, 0, "10.77.0.1:15008", ":15008"},
	} {
		if got := dial(t.Context(), t, client, c.peer, c.user, c.to); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s is answered by %q, want %q", c.what, c.to, got, c.want)
		}
	}
	if err := tool.Remove(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := dial(t.Context(), t, client, peer, 0, "10.77.0.1:80"); !strings.Contains(got, ":80") {
		t.Errorf("without rules the application is not asked, but %q", got)
	}
}

func first(r, _ Rules) Rules  { return r }
func second(_, r Rules) Rules { return r }
