package precheck

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// minFiles is how many open files are few: each captured connection has two and more.
const minFiles = 65536

// capNetAdmin is the bit of the capability to change iptables.
const capNetAdmin = 12

// Ports tells whether the bridge, and APISIX, can have their ports. Listen are addresses by what they are
// for, those of flags.
func Ports(listen []Port) Check {
	return func(ctx context.Context) (results []Result) {
		var free []string
		for _, p := range listen {
			var lc net.ListenConfig
			l, err := lc.Listen(ctx, "tcp", p.Address)
			if err != nil {
				do := "change " + p.Flag
				if errors.Is(err, syscall.EADDRINUSE) {
					do = "end what listens there (ss -ltnp), or change " + p.Flag
				} else if errors.Is(err, syscall.EACCES) {
					do = "ports below net.ipv4.ip_unprivileged_port_start need the capability NET_BIND_SERVICE"
				}
				results = append(results, bad(Fail, "port", do, "%v", err))
				continue
			}
			_ = l.Close()
			free = append(free, p.Address)
		}
		if len(free) > 0 {
			results = append(results, ok("ports", "free: %s", strings.Join(free, " ")))
		}
		return results
	}
}

// Port is an address that is going to be bound, and the flag that says so.
type Port struct{ Flag, Address string }

// Redirection tells whether connections are redirected to the bridge, or could be.
func Redirection(ctx context.Context) []Result {
	const check = "redirection"
	const do = `istio-init, istio-cni or "meshbridge iptables" redirects them`
	path, err := exec.LookPath("iptables-save")
	if err != nil {
		return []Result{bad(Warn, check, do+"; iptables is needed for the latter", "cannot be told: %v", err)}
	}
	out, err := exec.CommandContext(ctx, path, "-t", "nat").CombinedOutput()
	switch {
	case err != nil:
		return []Result{bad(Warn, check, do, "cannot be told without the capability NET_ADMIN")}
	case strings.Contains(string(out), "-A OUTPUT -j ISTIO_OUTPUT"):
		return []Result{ok(check, "outbound connections are redirected, inbound ones: %t", strings.Contains(string(out), "-A PREROUTING -p tcp -j ISTIO_INBOUND"))}
	default:
		return []Result{bad(Warn, check, do, "connections are not redirected")}
	}
}

// User tells whether the rules of iptables let the process's own connections through.
func User(context.Context) []Result {
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 1337 || gid == 1337 {
		return []Result{ok("user", "%d:%d, whose connections are not redirected", uid, gid)}
	}
	return []Result{bad(Warn, "user", "run the bridge and APISIX as 1337, or name the user with iptables --proxy-uid: its connections would be redirected to itself", "%d:%d", uid, gid)}
}

// Capabilities tells whether the process may change iptables.
func Capabilities(context.Context) []Result {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return nil // no Linux
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		text, ok := strings.CutPrefix(lines.Text(), "CapEff:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err != nil {
			break
		}
		if bits&(1<<capNetAdmin) != 0 {
			return []Result{{"capabilities", OK, `NET_ADMIN: "meshbridge iptables" can be used here`, ""}}
		}
		return []Result{{"capabilities", OK, `no NET_ADMIN, which only "meshbridge iptables" needs`, ""}}
	}
	return []Result{bad(Warn, "capabilities", "look at /proc/self/status", "cannot be told")}
}

// Limits looks at what bounds the number of connections.
func Limits(context.Context) []Result {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return []Result{bad(Warn, "open files", "ulimit -n", "cannot be told: %v", err)}
	}
	// Go raises the soft limit to the hard one for itself.
	if limit.Max < minFiles {
		return []Result{bad(Warn, "open files", "raise it (ulimit -Hn, LimitNOFILE= of systemd): each captured connection has two and more", "at most %d", limit.Max)}
	}
	return []Result{ok("open files", "at most %d", limit.Max)}
}

// IPv6 tells which families there are.
func IPv6(addresses func() ([]net.Addr, error)) Check {
	return func(context.Context) []Result {
		if _, err := os.Stat("/proc/net/if_inet6"); errors.Is(err, os.ErrNotExist) {
			return []Result{ok("IPv6", "the kernel has none: its ports are left out")}
		}
		all, err := addresses()
		if err != nil {
			return []Result{bad(Warn, "IPv6", "look at ip address", "%v", err)}
		}
		for _, a := range all {
			if ip, _, err := net.ParseCIDR(a.String()); err == nil && ip.To4() == nil && ip.IsGlobalUnicast() {
				return []Result{ok("IPv6", "%s", ip)}
			}
		}
		return []Result{ok("IPv6", "no address besides local ones")}
	}
}

// Writable tells whether files can be made in a directory.
func Writable(check, directory, do string) Check {
	return func(context.Context) []Result {
		file, err := os.CreateTemp(directory, ".meshbridge-precheck-*")
		if err != nil {
			return []Result{bad(Fail, check, do, "%v", err)}
		}
		if err := errors.Join(file.Close(), os.Remove(file.Name())); err != nil {
			return []Result{bad(Fail, check, do, "%v", err)}
		}
		return []Result{ok(check, "%s can be written", filepath.Clean(directory))}
	}
}
