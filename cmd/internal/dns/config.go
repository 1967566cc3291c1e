package dns

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits and defaults of resolv.conf(5).
const (
	defaultNdots    = 1
	defaultTimeout  = 5 * time.Second
	defaultAttempts = 2
	maxNdots        = 15
	maxTimeout      = 30 * time.Second
	maxAttempts     = 5
)

// settings are what resolv.conf says.
type settings struct {
	servers  []string // address and port
	search   []string // without the dot at the end
	ndots    int
	timeout  time.Duration // of one attempt with one server
	attempts int
	useTCP   bool
}

// parseSettings never fails: like the C library's resolver, it skips what it does not know.
func parseSettings(text string) settings {
	s := settings{ndots: defaultNdots, timeout: defaultTimeout, attempts: defaultAttempts}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		line, _, _ = strings.Cut(line, ";")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if ip, err := netip.ParseAddr(fields[1]); err == nil {
				s.servers = append(s.servers, netip.AddrPortFrom(ip, 53).String())
			}
		case "search", "domain":
			s.search = s.search[:0]
			for _, domain := range fields[1:] {
				if domain = strings.TrimSuffix(domain, "."); domain != "" {
					s.search = append(s.search, domain)
				}
			}
		case "options":
			for _, option := range fields[1:] {
				s.option(option)
			}
		}
	}
	if len(s.servers) == 0 {
		s.servers = []string{"127.0.0.1:53", "[::1]:53"}
	}
	return s
}

func (s *settings) option(option string) {
	name, value, _ := strings.Cut(option, ":")
	n, err := strconv.Atoi(value)
	valid := err == nil && n >= 0
	switch {
	case name == "use-vc":
		s.useTCP = true
	case name == "ndots" && valid:
		s.ndots = min(n, maxNdots)
	case name == "timeout" && valid:
		s.timeout = min(time.Duration(max(n, 1))*time.Second, maxTimeout)
	case name == "attempts" && valid:
		s.attempts = min(max(n, 1), maxAttempts)
	}
}

// candidates returns the absolute names to try for a name, in order.
func (s *settings) candidates(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var searched []string
	for _, domain := range s.search {
		searched = append(searched, name+"."+domain+".")
	}
	if strings.Count(name, ".") >= s.ndots {
		return append([]string{name + "."}, searched...)
	}
	return append(searched, name+".")
}

// watchedFile is a small file that is read again when it has changed.
type watchedFile[T any] struct {
	path  string
	parse func(string) T

	mu       sync.Mutex
	modified time.Time // guarded by mu
	value    T         // guarded by mu
	loaded   bool      // guarded by mu
}

// get returns what the file says; a file that does not exist is an empty one.
func (f *watchedFile[T]) get() (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.parse(""), nil
	case err != nil:
		return f.value, err
	case f.loaded && info.ModTime().Equal(f.modified):
		return f.value, nil
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return f.value, err
	}
	f.value, f.modified, f.loaded = f.parse(string(text)), info.ModTime(), true
	return f.value, nil
}

// parseHosts reads hosts(5): addresses by name, in lower case.
func parseHosts(text string) map[string][]netip.Addr {
	hosts := map[string][]netip.Addr{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		ip, err := netip.ParseAddr(fields[0])
		if err != nil || ip.Zone() != "" {
			continue
		}
		for _, name := range fields[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			if !slices.Contains(hosts[name], ip) {
				hosts[name] = append(hosts[name], ip)
			}
		}
	}
	return hosts
}

// ParseServer returns a DNS server's address with its port, which is 53 where none is given.
func ParseServer(text string) (string, error) {
	if server, err := netip.ParseAddrPort(text); err == nil {
		return server.String(), nil
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err != nil {
		return "", fmt.Errorf("%q is neither an IP address nor one with a port", text)
	}
	return netip.AddrPortFrom(ip, 53).String(), nil
}
