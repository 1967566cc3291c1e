package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// headerLimit is nginx's: NGX_PROXY_PROTOCOL_MAX_HEADER.
const headerLimit = 4096

var signature = [12]byte{'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'}

// proxied is a connection with what its header says.
type proxied struct {
	net.Conn
	source, destination netip.AddrPort
	values              map[byte]string
}

// chain is the filter chain that capture names.
func (p *proxied) chain() string { return p.values[0xe0] }

// vars are nginx's variables about the header.
func (p *proxied) vars() map[string]string {
	vars := map[string]string{
		"proxy_protocol_addr":        p.source.Addr().String(),
		"proxy_protocol_port":        strconv.Itoa(int(p.source.Port())),
		"proxy_protocol_server_addr": p.destination.Addr().String(),
		"proxy_protocol_server_port": strconv.Itoa(int(p.destination.Port())),
		"remote_addr":                p.source.Addr().String(),
	}
	for kind, value := range p.values {
		vars[fmt.Sprintf("proxy_protocol_tlv_0x%02x", kind)] = value
	}
	return vars
}

// direct is a connection that nothing is in front of.
func direct(conn net.Conn) (*proxied, error) {
	source, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return nil, err
	}
	destination, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return &proxied{Conn: conn, source: source, destination: destination}, err
}

// accept reads the header of version 2.
func accept(conn net.Conn) (*proxied, error) {
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, err
	}
	var head [16]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, fmt.Errorf("PROXY protocol header: %w", err)
	}
	if [12]byte(head[:12]) != signature || head[12]>>4 != 2 {
		return nil, fmt.Errorf("no PROXY protocol header of version 2: %q", head)
	}
	size := int(binary.BigEndian.Uint16(head[14:]))
	if size+len(head) > headerLimit {
		return nil, fmt.Errorf("PROXY protocol header of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, fmt.Errorf("PROXY protocol header: %w", err)
	}
	p := &proxied{Conn: conn, values: map[byte]string{}}
	rest, err := p.addresses(head[13], body)
	if err != nil {
		return nil, err
	}
	for len(rest) > 0 {
		if len(rest) < 3 || len(rest) < 3+int(binary.BigEndian.Uint16(rest[1:])) {
			return nil, errors.New("PROXY protocol header: a value is cut off")
		}
		n := int(binary.BigEndian.Uint16(rest[1:]))
		p.values[rest[0]] = string(rest[3 : 3+n])
		rest = rest[3+n:]
	}
	return p, conn.SetReadDeadline(time.Time{})
}

func (p *proxied) addresses(family byte, body []byte) (rest []byte, err error) {
	var n int
	switch family {
	case 0x11: // TCP over IPv4
		n = 4
	case 0x21: // TCP over IPv6
		n = 16
	default:
		return nil, fmt.Errorf("PROXY protocol header: family 0x%02x", family)
	}
	if len(body) < 2*n+4 {
		return nil, errors.New("PROXY protocol header: the addresses are cut off")
	}
	source, _ := netip.AddrFromSlice(body[:n])
	destination, _ := netip.AddrFromSlice(body[n : 2*n])
	p.source = netip.AddrPortFrom(source, binary.BigEndian.Uint16(body[2*n:]))
	p.destination = netip.AddrPortFrom(destination, binary.BigEndian.Uint16(body[2*n+2:]))
	return body[2*n+4:], nil
}

func decode(data []byte, into any) error { return json.Unmarshal(data, into) }
