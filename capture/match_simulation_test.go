package capture_test

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"meshbridge/capture"
	"meshbridge/translate"
	"meshbridge/translate/difftest"
)

var recordings = flag.String("recordings", "", "a directory of what Istio makes of its own test cases, which the conformance module records")

// What there is at least in Istio's tables, lest they are silently not read any more.
const (
	leastTables    = 20
	leastCases     = 450
	leastGenerated = 21000
	// mostExplained is how many calls at most may differ for a reason that is known.
	mostExplained = 120
)

// simulated counts what became of the calls of a table.
type simulated struct {
	configurations, cases, generated, agreed, explained, failed int
}

func (n *simulated) add(o *simulated) {
	n.configurations, n.cases, n.generated = n.configurations+o.configurations, n.cases+o.cases, n.generated+o.generated
	n.agreed, n.explained, n.failed = n.agreed+o.agreed, n.explained+o.explained, n.failed+o.failed
}

// TestSimulations translates what Istio generates for its own tables of cases, and compares the listener
// and the filter chain of each call with what Istio's simulation says, and what becomes of it there.
func TestSimulations(t *testing.T) {
	if *recordings == "" {
		t.Skip("the conformance module runs this, with -recordings")
	}
	files, err := filepath.Glob(filepath.Join(*recordings, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings in %s: %v", *recordings, err)
	}
	tables, explanations := map[string]*simulated{}, map[string]int{}
	hellos := map[string][]byte{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s, err := difftest.ReadSimulation(raw)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		options := translate.Options{Profile: translate.Mesh(), InstanceIPs: s.InstanceIPs()}
		state, _, err := translate.Translate(options, s.Snapshot(), translate.Inputs{Allocations: new(numbers)})
		if err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		name, _, _ := strings.Cut(s.Name, "/")
		n := tables[name]
		if n == nil {
			n = new(simulated)
			tables[name] = n
		}
		n.configurations++
		listeners := capture.NewTable(state.Listeners())
		for _, c := range s.Calls {
			if c.Generated {
				n.generated++
			} else {
				n.cases++
			}
			d := decide(t, listeners, s.Router, c, hellos)
			differs := d.contradicts(c)
			switch {
			case differs == "":
				n.agreed++
			case d.explanation(c) != "":
				n.explained++
				explanations[d.explanation(c)]++
			default:
				n.failed++
				t.Errorf("%s: %s: %s", s.Name, c.Name, differs)
			}
		}
	}
	var text strings.Builder
	out := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	line := func(name string, n *simulated) {
		fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", name, n.configurations, n.cases, n.generated, n.agreed, n.explained, n.failed)
	}
	fmt.Fprintln(out, "table\tconfigurations\tcases\tgenerated calls\tagreed\texplained\tfailed\t")
	var total simulated
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		line(name, tables[name])
		total.add(tables[name])
	}
	line(fmt.Sprintf("%d tables", len(tables)), &total)
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, why := range slices.Sorted(maps.Keys(explanations)) {
		fmt.Fprintf(&text, "%6d explained: %s\n", explanations[why], why)
	}
	t.Logf("filter chains against Istio's simulation\n%s", text.String())
	if len(tables) < leastTables || total.cases < leastCases || total.generated < leastGenerated || total.explained > mostExplained {
		t.Error("this compares less than there was in Istio's tables")
	}
}

// numbers gives out numbers in the order in which they are asked for.
type numbers struct{ given map[string]int }

func (n *numbers) number(name string) int {
	if n.given == nil {
		n.given = map[string]int{}
	}
	if _, ok := n.given[name]; !ok {
		n.given[name] = len(n.given) + 1
	}
	return n.given[name]
}

func (n *numbers) StreamPort(upstream string) (uint16, bool) {
	return uint16(16000 + n.number(upstream)), true
}

func (n *numbers) OverlayAddress(endpoint string) (netip.Addr, bool) {
	number := n.number(endpoint)
	return netip.AddrFrom4([4]byte{127, 96, byte(number >> 8), byte(number)}), true
}

// decision is what capture makes of a call.
type decision struct {
	listener *translate.Listener
	chain    *translate.FilterChain
}

func decide(t *testing.T, listeners capture.Table, router bool, c difftest.SimulatedCall, hellos map[string][]byte) decision {
	t.Helper()
	from := netip.MustParseAddrPort("10.9.8.7:34567")
	to := netip.AddrPortFrom(netip.MustParseAddr(c.Address), uint16(c.Port))
	var d decision
	switch {
	case router:
		d.listener = listeners.Accepted(to)
	case c.Inbound(router):
		d.listener = listeners.Redirected(translate.Inbound, to)
	default:
		d.listener = listeners.Redirected(translate.Outbound, to)
	}
	if d.listener == nil {
		return d
	}
	var err error
	if d.chain, err = listeners.Chain(d.listener, from, to, firstBytes(c, hellos)); err != nil {
		t.Fatal(err)
	}
	return d
}

// firstBytes returns what a client sends first.
func firstBytes(c difftest.SimulatedCall, hellos map[string][]byte) []byte {
	switch {
	case c.TLS != "plaintext":
		key := c.SNI + "\x00" + c.ALPN
		if hellos[key] == nil {
			hellos[key] = clientHelloOf(c.SNI, c.ALPN)
		}
		return hellos[key]
	case c.Protocol == "http":
		return []byte("GET " + c.Path + " HTTP/1.1\r\nHost: any\r\n\r\n")
	case c.Protocol == "http2":
		return []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	default:
		return []byte("\x00\x01\x02\x03 no protocol that is known")
	}
}

// clientHelloOf returns what a TLS client sends first; name and protocol may be empty.
func clientHelloOf(name, protocol string) []byte {
	config := &tls.Config{ServerName: name, InsecureSkipVerify: true}
	if protocol != "" {
		config.NextProtos = []string{protocol}
	}
	written := new(recorder)
	_ = tls.Client(written, config).HandshakeContext(context.Background())
	return written.bytes
}

// recorder is a connection on which nobody answers.
type recorder struct {
	net.Conn
	bytes []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	r.bytes = append(r.bytes, b...)
	return len(b), nil
}
func (r *recorder) Read([]byte) (int, error) { return 0, net.ErrClosed }
func (r *recorder) Close() error             { return nil }

// The texts of the simulation's errors.
const (
	errNoListener    = "no listener matched"
	errNoFilterChain = "no filter chains matched"
	errTwoChains     = "multiple filter chains matched"
	errTLS           = "invalid TLS"
	errMutualTLS     = "invalid mTLS"
	errProtocol      = "protocol error"
)

// contradicts says what a decision differs in from the simulation; empty where it says the same.
func (d decision) contradicts(c difftest.SimulatedCall) string {
	listener, chain, key := "", "", ""
	if d.listener != nil {
		listener = d.listener.Name
	}
	if d.chain != nil {
		chain, key = d.chain.Name, d.chain.Key
	}
	if listener != c.Listener || chain != c.FilterChain {
		return fmt.Sprintf("Istio's simulation says listener %q, filter chain %q (%s), capture %q, %q", c.Listener, c.FilterChain, c.Error, listener, chain)
	}
	if got := d.fate(c); got != fate(c.Error) {
		return fmt.Sprintf("on filter chain %q (%s): Istio's simulation says %q, capture %q", chain, key, fate(c.Error), got)
	}
	if d.chain == nil || fate(c.Error) != "" || d.chain.TCP == nil || c.Cluster == "" {
		return ""
	}
	var clusters []string
	for _, cluster := range d.chain.TCP.Clusters {
		clusters = append(clusters, cluster.Name)
	}
	if !slices.Contains(clusters, c.Cluster) {
		return fmt.Sprintf("on filter chain %q (%s): Istio's simulation says cluster %q, capture %v", chain, key, c.Cluster, clusters)
	}
	return ""
}

// fate is an error of the simulation that is about connections; what is about requests comes after them.
func fate(err string) string {
	switch err {
	case errNoListener, errNoFilterChain, errTwoChains, errTLS, errMutualTLS, errProtocol:
		return err
	default:
		return ""
	}
}

// What becomes of connections by configuration that is no error to the simulation.
const (
	refused   = "refused"
	blackHole = "BlackHoleCluster"
)

// fate says what becomes of a connection, in the simulation's terms.
func (d decision) fate(c difftest.SimulatedCall) string {
	switch {
	case d.listener == nil:
		return errNoListener
	case d.chain == nil:
		return errNoFilterChain
	case d.chain.Refused != "" && c.Cluster != blackHole:
		return refused
	}
	terminated, mutual := d.terminates()
	switch {
	case terminated && c.TLS == "plaintext":
		return errTLS
	case mutual && c.TLS != "mtls":
		return errMutualTLS
	case d.chain.HTTP != nil && (c.TLS != "plaintext" && !terminated || c.Protocol == "tcp"):
		return errProtocol
	default:
		return ""
	}
}

// terminates tells whether TLS ends at the filter chain, and whether clients must have a certificate.
func (d decision) terminates() (terminated, mutual bool) {
	if d.chain.TLS != nil {
		return true, d.chain.TLS.RequireClientCertificate
	}
	return d.chain.HTTP != nil && d.chain.HTTP.TLS, false
}

// explanation says why Envoy, and capture with it, does not do what the simulation says; empty if nothing
// explains a difference.
func (d decision) explanation(c difftest.SimulatedCall) string {
	switch {
	case d.chain == nil:
		return ""
	case c.Error == errTwoChains:
		return "Envoy accepts no listener with two filter chains that have the same criteria"
	case c.TLS == "plaintext" && c.SNI != "":
		return "a connection without TLS has no server name"
	case c.TLS == "mtls" && c.Error == errMutualTLS:
		if terminated, mutual := d.terminates(); terminated && !mutual {
			return "a client sends no certificate to a server that asks for none"
		}
	}
	return ""
}
