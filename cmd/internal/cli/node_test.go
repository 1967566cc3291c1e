package cli

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestADualStackPodHasAllItsAddresses(t *testing.T) {
	parse := func(texts ...string) (all []net.Addr) {
		for _, text := range texts {
			ip, network, err := net.ParseCIDR(text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, &net.IPNet{IP: ip, Mask: network.Mask})
		}
		return all
	}
	a := &app{
		environ: func() []string { return []string{"POD_NAME=a", "POD_NAMESPACE=b", "INSTANCE_IP=10.0.0.7"} },
		addresses: func() ([]net.Addr, error) {
			return append(parse("127.0.0.1/8", "::1/128", "10.0.0.7/24", "fd00::7/64", "fe80::7/64"), &net.UnixAddr{Name: "none"}), nil
		},
	}
	node, err := (&nodeOptions{}).config(a)
	if want := []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")}; err != nil || !slices.Equal(node.IPs, want) {
		t.Errorf("the addresses are %v (%v), want %v", node.IPs, err, want)
	}
	// Who says who it is means it.
	node, err = (&nodeOptions{id: "sidecar~10.0.0.8~a.b~b.svc.cluster.local"}).config(a)
	if err != nil || slices.Contains(node.IPs, netip.MustParseAddr("fd00::7")) {
		t.Errorf("the addresses are %v (%v)", node.IPs, err)
	}
	a.addresses = func() ([]net.Addr, error) { return nil, errors.New("netlink") }
	if _, err := (&nodeOptions{}).config(a); err == nil || !strings.Contains(err.Error(), "interfaces") {
		t.Errorf("the error is %v", err)
	}
}

func TestIstiodIsWhereTheInjectorSays(t *testing.T) {
	for proxyConfig, want := range map[string]string{
		`{}`: "istiod.istio-system.svc:15012",
		`{"discoveryAddress":"istiod-canary.istio-system.svc:15012"}`: "istiod-canary.istio-system.svc:15012",
		``: "",
	} {
		a := &app{
			environ: func() []string {
				return []string{"POD_NAME=a", "POD_NAMESPACE=b", "INSTANCE_IP=10.0.0.7", "PROXY_CONFIG=" + proxyConfig}
			},
			addresses: func() ([]net.Addr, error) { return nil, nil },
		}
		node, err := (&nodeOptions{}).config(a)
		if err != nil {
			t.Fatal(err)
		}
		target, err := (&sourceOptions{}).target(node)
		if target.Address != want || (err == nil) != (want != "") {
			t.Errorf("with PROXY_CONFIG=%s: %q, %v", proxyConfig, target.Address, err)
		}
	}
}
