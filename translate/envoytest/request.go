package envoytest

import (
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// Direction says how a connection gets to Envoy.
type Direction int

const (
	// Edge connections are made to a port that a listener is bound to.
	Edge Direction = iota
	// Outbound connections are opened by the workload and redirected.
	Outbound
	// Inbound connections are opened to the workload and redirected.
	Inbound
)

// Connection is what a request arrives on.
type Connection struct {
	Direction Direction
	// Destination is what the client connected to, Source its own address.
	Destination, Source netip.AddrPort
	// TLS tells that the client begins with a handshake, for ServerName and with ALPN.
	TLS        bool
	ServerName string
	ALPN       []string
	// Certificate is the client's; nil without.
	Certificate *Certificate
}

// Certificate is a client's certificate.
type Certificate struct {
	// URIs and DNS are its subject alternative names.
	URIs, DNS []string
	Subject   string
	// Validated tells that it is signed by an authority that the chain trusts.
	Validated bool
}

// Header is one header line. Names are compared without regard to case.
type Header struct{ Name, Value string }

// Draws are the random choices, each a fraction in [0, 1) of which "p percent" are those below p/100.
type Draws struct{ Match, Cluster, Delay, Abort float64 }

// Request is a request and what decides about it besides the configuration.
type Request struct {
	Connection Connection
	// Method is GET where empty.
	Method string
	// Protocol is HTTP/1.1 where empty.
	Protocol string
	// Host is the Host header or :authority, as sent.
	Host string
	// Target is path and query, as sent; / where empty.
	Target  string
	Headers []Header
	Draws   Draws
	// Metadata is dynamic metadata by filter, as filters that are not evaluated would set it.
	Metadata map[string]*structpb.Struct
	// Response is what the upstream answers with, where the request gets there.
	Response []Header
}

// headerMap is Envoy's: lines in order, names in lower case. Pseudo headers have their colon.
type headerMap struct{ lines []Header }

func newHeaderMap(lines []Header) *headerMap {
	m := &headerMap{lines: make([]Header, 0, len(lines)+4)}
	for _, h := range lines {
		m.add(h.Name, h.Value)
	}
	return m
}

func (m *headerMap) add(name, value string) {
	m.lines = append(m.lines, Header{strings.ToLower(name), value})
}

func (m *headerMap) remove(name string) {
	name = strings.ToLower(name)
	m.lines = slices.DeleteFunc(m.lines, func(h Header) bool { return h.Name == name })
}

func (m *headerMap) set(name, value string) {
	m.remove(name)
	m.add(name, value)
}

func (m *headerMap) values(name string) []string {
	var out []string
	for _, h := range m.lines {
		if h.Name == name {
			out = append(out, h.Value)
		}
	}
	return out
}

// get returns the first value.
func (m *headerMap) get(name string) string {
	for _, h := range m.lines {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

func (m *headerMap) has(name string) bool {
	return slices.ContainsFunc(m.lines, func(h Header) bool { return h.Name == name })
}

// joined is what matchers see: all values, with a comma between them. ok is false without any.
func (m *headerMap) joined(name string) (value string, ok bool) {
	values := m.values(strings.ToLower(name))
	return strings.Join(values, ","), len(values) > 0
}

// plain returns the lines that are no pseudo headers.
func (m *headerMap) plain() []Header {
	return slices.DeleteFunc(slices.Clone(m.lines), func(h Header) bool { return strings.HasPrefix(h.Name, ":") })
}
