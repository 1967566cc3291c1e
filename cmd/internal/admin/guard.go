package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Guard lets only programs on this host through to a handler. A browser on this host counts as the page
// that it shows: a page of another site must neither send requests that change something, nor make a
// name of its own resolve to this host and read the answers as its own (DNS rebinding).
func Guard(next http.Handler) http.Handler {
	sameSite := http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		switch {
		case err != nil || !peer.Addr().Unmap().IsLoopback():
			writeText(w, http.StatusForbidden, "only this host is answered\n")
		case !localName(r.Host):
			writeText(w, http.StatusForbidden, "the host of a request must be localhost or a loopback address\n")
		default:
			sameSite.ServeHTTP(w, r)
		}
	})
}

// localName tells whether a Host header names this host. HTTP/1.0, which no browser speaks, has none.
func localName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if name == "" || strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}
