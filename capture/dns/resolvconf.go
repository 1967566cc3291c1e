package dns

import (
	"bufio"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	nameserverPort = 53
	// checkInterval is the least time between looks at whether resolv.conf has changed.
	checkInterval = 5 * time.Second
)

// resolvers are what resolv.conf(5) says.
type resolvers struct {
	servers []netip.AddrPort
	// search is the first domain of the search list, in lower case with the final dot, or "".
	search string
}

// parseResolvers never fails: like the C library's resolver, it skips what it does not know.
func parseResolvers(text string) resolvers {
	var r resolvers
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
				r.servers = append(r.servers, netip.AddrPortFrom(ip.Unmap(), nameserverPort))
			}
		case "search", "domain":
			r.search = lower(strings.Trim(fields[1], "."))
			if r.search != "" {
				r.search += "."
			}
		}
	}
	if len(r.servers) == 0 {
		r.servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), nameserverPort)}
	}
	return r
}

// resolvConf is resolv.conf, read again when it has changed.
type resolvConf struct {
	path   string
	fixed  []netip.AddrPort // instead of its nameservers
	own    []netip.AddrPort // never asked: that would be ourselves
	logger *slog.Logger

	mu       sync.Mutex
	checked  time.Time // guarded by mu
	modified time.Time // guarded by mu
	size     int64     // guarded by mu
	now      resolvers // guarded by mu
}

// get returns what the file says now. Without a file it is what it was, at first the defaults of
// resolv.conf(5).
func (c *resolvConf) get(ctx context.Context) resolvers {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.checked.IsZero()
	if !first && time.Since(c.checked) < checkInterval {
		return c.now
	}
	c.checked = time.Now()
	info, err := os.Stat(c.path)
	if err == nil && !first && info.ModTime().Equal(c.modified) && info.Size() == c.size {
		return c.now
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(c.path)
	}
	switch {
	case err == nil:
		c.modified, c.size = info.ModTime(), info.Size()
		c.now = c.usable(parseResolvers(string(text)))
		c.logger.LogAttrs(ctx, slog.LevelInfo, "nameservers read", slog.String("file", c.path),
			slog.Any("nameservers", c.now.servers), slog.String("search", c.now.search))
	case first:
		c.now = c.usable(parseResolvers(""))
		c.logger.LogAttrs(ctx, slog.LevelWarn, "no nameservers to read, using the default",
			slog.Any("error", err), slog.Any("nameservers", c.now.servers))
	}
	return c.now
}

func (c *resolvConf) usable(r resolvers) resolvers {
	if len(c.fixed) > 0 {
		r.servers = c.fixed
	}
	servers := make([]netip.AddrPort, 0, len(r.servers))
	for _, server := range r.servers {
		if !c.isOwn(server) {
			servers = append(servers, server)
		}
	}
	r.servers = servers
	return r
}

func (c *resolvConf) isOwn(server netip.AddrPort) bool {
	for _, own := range c.own {
		if own.Port() == server.Port() && (own.Addr() == server.Addr() || own.Addr().IsUnspecified() && server.Addr().IsLoopback()) {
			return true
		}
	}
	return false
}
