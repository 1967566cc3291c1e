package capture

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// proxyV1Prefix begins a header of version 1, and maxProxyV1 is how long one may be, with its line end.
const (
	proxyV1Prefix = "PROXY "
	maxProxyV1    = 107
)

// readProxyV1 reads a header of version 1, a line of text whose begin has been seen.
func readProxyV1(b []byte) (proxied, verdict, error) {
	line, _, whole := bytes.Cut(b[:min(len(b), maxProxyV1)], []byte("\r\n"))
	if !whole {
		if len(b) >= maxProxyV1 {
			return proxied{}, no, fmt.Errorf("PROXY protocol: line is longer than %d bytes", maxProxyV1)
		}
		return proxied{}, undecided, nil
	}
	header := proxied{length: len(line) + len("\r\n")}
	fields := strings.Split(string(line), " ")
	if fields[1] == "UNKNOWN" {
		return header, yes, nil
	}
	const count = 6
	if len(fields) != count || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return proxied{}, no, errors.New("PROXY protocol: line is neither TCP4, TCP6 nor UNKNOWN with its fields")
	}
	var err error
	if header.source, err = proxyV1Address(fields[1], fields[2], fields[4]); err != nil {
		return proxied{}, no, fmt.Errorf("PROXY protocol: source: %w", err)
	}
	if header.destination, err = proxyV1Address(fields[1], fields[3], fields[5]); err != nil {
		return proxied{}, no, fmt.Errorf("PROXY protocol: destination: %w", err)
	}
	return header, yes, nil
}

func proxyV1Address(family, address, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if a.Is4() != (family == "TCP4") || a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%s is not of %s", a, family)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port: %w", err)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}
