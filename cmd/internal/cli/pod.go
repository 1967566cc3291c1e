package cli

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"meshbridge/cmd/internal/bridge"
	"meshbridge/cmd/internal/status"
	"meshbridge/xds"
)

// podConfig is what port 15020 serves to the pod, from the variables that Istio's injector sets for its
// agent. APISIX is the address of its metrics, empty where the bridge has none.
func podConfig(a *app, node xds.NodeConfig, metrics, apisix string) (c status.Config, err error) {
	if c.Probes, err = status.ParseProbes(a.getenv("ISTIO_KUBE_APP_PROBERS")); err != nil {
		return c, fmt.Errorf("ISTIO_KUBE_APP_PROBERS: %w", err)
	}
	if len(node.IPs) > 0 {
		c.PodIP = node.IPs[0]
	}
	for name, to := range map[string]*bool{
		"REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION": &c.ProbeLocalhost, "METRICS_LOCALHOST_ACCESS_ONLY": &c.MetricsLocalhost,
	} {
		if value := a.getenv(name); value != "" {
			if *to, err = strconv.ParseBool(value); err != nil {
				return c, fmt.Errorf("%s: %q: want true or false", name, value)
			}
		}
	}
	if apisix != "" {
		if c.APISIX, err = metricsURL(apisix); err != nil {
			return c, fmt.Errorf("--apisix-metrics: %w", err)
		}
	}
	// A gateway's port 15020 is mostly a port of its Service, and there is no application behind it.
	if node.Type == xds.NodeRouter || metrics == bridge.Off {
		return c, nil
	}
	_, port, err := net.SplitHostPort(metrics)
	if err != nil {
		return c, fmt.Errorf("--metrics: %w", err)
	}
	own, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return c, fmt.Errorf("--metrics: %w", err)
	}
	if c.Scrape, err = status.ParseScrape(a.getenv("ISTIO_PROMETHEUS_ANNOTATIONS"), uint16(own)); err != nil {
		return c, fmt.Errorf("ISTIO_PROMETHEUS_ANNOTATIONS, from the annotations prometheus.io/* of the pod: %w", err)
	}
	return c, nil
}

// metricsURL is where APISIX is asked for its metrics, on this host.
func metricsURL(address string) (string, error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return "", err
	}
	ip := a.Addr()
	switch {
	case ip.IsUnspecified() && ip.Is4():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case ip.IsUnspecified():
		ip = netip.IPv6Loopback()
	}
	return "http://" + netip.AddrPortFrom(ip, a.Port()).String() + "/stats/prometheus", nil
}
