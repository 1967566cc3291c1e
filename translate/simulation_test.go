package translate_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"meshbridge/translate"
	"meshbridge/translate/difftest"
	"meshbridge/translate/envoytest"
)

var recordings = flag.String("recordings", "", "a directory of what Istio makes of its own test cases, which the conformance module records")

// simulatedCall is a call of Istio's tables as the reference of Envoy is asked about it.
type simulatedCall struct{ difftest.SimulatedCall }

// What is compared at least, lest Istio's tables are silently not read any more.
const (
	leastSimulations    = 130
	leastSimulatedCalls = 19000
)

// TestSimulations compares the reference of Envoy with what Istio's simulation says about Istio's own
// cases, and the translation of their configurations with the reference.
func TestSimulations(t *testing.T) {
	if *recordings == "" {
		t.Skip("the conformance module runs this, with -recordings")
	}
	files, err := filepath.Glob(filepath.Join(*recordings, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings in %s: %v", *recordings, err)
	}
	const requests = 60
	report := difftest.NewReport()
	calls, skipped, worlds := 0, 0, 0
	for n, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s, err := difftest.ReadSimulation(raw)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		snap := s.Snapshot()
		envoy, err := envoytest.New(snap)
		if err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		for _, call := range s.Calls {
			c := simulatedCall{call}
			calls++
			if !c.comparable() {
				skipped++
				continue
			}
			if why := c.contradicts(envoy.Evaluate(c.request(s.Router))); why != "" {
				t.Errorf("%s: %s: %s", s.Name, c.Name, why)
			}
		}
		profiles := []translate.Profile{translate.Mesh(), translate.Direct(0, 0)}
		if s.Router {
			profiles[1] = translate.Gateway()
		}
		for i, p := range profiles {
			options := translate.Options{Profile: p, InstanceIPs: s.InstanceIPs()}
			w, err := difftest.NewWorld(s.Name+"/"+p.Name(), snap, options)
			if err != nil {
				t.Error(err)
				continue
			}
			if reached, _ := w.Served(); reached > 0 {
				worlds++
				w.Run(newRandom(ofSimulations, uint64(2*n+i)), requests, report)
			}
		}
	}
	t.Logf("%d configurations of Istio's with %d calls, of which %d are not compared; %d translations", len(files), calls, skipped, worlds)
	check(t, report)
	if len(files) < leastSimulations || calls-skipped < leastSimulatedCalls {
		t.Error("this is less than Istio's tables had")
	}
}

// comparable tells whether Envoy has an answer, and the answer is about the same: it accepts no two
// chains that match the same, what is no HTTP on an HTTP chain is no request, a plain connection has no
// server name, and a certificate that nobody asks for is not sent.
func (c simulatedCall) comparable() bool {
	_, err := netip.ParseAddr(c.Address)
	return err == nil && c.Error != "multiple filter chains matched" && c.Error != "protocol error" &&
		(c.TLS != "plaintext" || c.SNI == "") && (c.TLS != "mtls" || c.Error != "invalid mTLS")
}

func (c simulatedCall) request(router bool) envoytest.Request {
	r := envoytest.Request{Connection: envoytest.Connection{
		Destination: netip.AddrPortFrom(netip.MustParseAddr(c.Address), uint16(c.Port)), Source: netip.MustParseAddrPort("10.9.8.7:34567"),
		TLS: c.TLS != "plaintext", ServerName: c.SNI,
	}, Host: "any", Target: c.Path}
	switch {
	case c.Inbound(router):
		r.Connection.Direction = envoytest.Inbound
	case !router:
		r.Connection.Direction = envoytest.Outbound
	}
	switch {
	case c.ALPN != "":
		r.Connection.ALPN = []string{c.ALPN}
	case !r.Connection.TLS && c.Protocol == "tcp":
		r.Connection.ALPN = []string{"none"} // nothing that the HTTP inspector knows
	case !r.Connection.TLS && c.Protocol == "http2":
		r.Connection.ALPN = []string{"h2c"}
	}
	if c.TLS == "mtls" {
		r.Connection.Certificate = &envoytest.Certificate{URIs: []string{"spiffe://cluster.local/ns/default/sa/client"}, Validated: true}
	}
	for name, values := range c.Headers {
		if name == "Host" {
			r.Host = values[0]
			continue
		}
		for _, v := range values {
			r.Headers = append(r.Headers, envoytest.Header{Name: name, Value: v})
		}
	}
	return r
}

// contradicts says what a decision differs in; empty where it says the same.
func (c simulatedCall) contradicts(d envoytest.Decision) string {
	wanted := func(what, want, got string) string {
		return fmt.Sprintf("%s: Istio's simulation says %q, the reference of Envoy %q (%+v)", what, want, got, d)
	}
	switch {
	case c.Listener != d.Listener:
		return wanted("listener", c.Listener, d.Listener)
	case c.FilterChain != d.FilterChain:
		return wanted("filter chain", c.FilterChain, d.FilterChain)
	}
	switch c.Error {
	case "":
		if d.Outcome != envoytest.TCP && (c.VirtualHost != d.VirtualHost || c.Route != d.Route) {
			return wanted("route", c.VirtualHost+" "+c.Route, d.VirtualHost+" "+d.Route)
		}
		if c.Cluster != "" && c.Cluster != d.Cluster {
			return wanted("cluster", c.Cluster, d.Cluster)
		}
	case "no route matched", "no virtual host matched":
		if d.Outcome != envoytest.NotFound {
			return wanted("outcome", c.Error, string(d.Outcome))
		}
	case "tls required, sending 301":
		if d.Outcome != envoytest.Redirect {
			return wanted("outcome", c.Error, string(d.Outcome))
		}
	default:
		if d.Outcome != envoytest.Closed {
			return wanted("outcome", c.Error, string(d.Outcome))
		}
	}
	return ""
}
