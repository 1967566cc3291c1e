package capture

import (
	"fmt"
	"net"
)

// writeProxyHeader tells an endpoint who connects (upstream_proxy_protocol), in that version of the
// PROXY protocol; 0 tells nothing. APISIX does not say for whom it connects, and shares connections
// among clients: the source is this host.
func writeProxyHeader(upstream net.Conn, version int) error {
	source, destination := addrPort(upstream.LocalAddr()), addrPort(upstream.RemoteAddr())
	var header []byte
	switch {
	case version == 0:
		return nil
	case version == 1 && !source.IsValid():
		header = []byte("PROXY UNKNOWN\r\n")
	case version == 1:
		family := "TCP4"
		if source.Addr().Is6() {
			family = "TCP6"
		}
		header = fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n",
			family, source.Addr(), destination.Addr(), source.Port(), destination.Port())
	default:
		var err error
		if header, err = (&proxyHeader{source: source, destination: destination}).append(nil); err != nil {
			return err
		}
	}
	_, err := upstream.Write(header)
	return err
}
