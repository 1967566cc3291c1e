package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Scrape says where the application has its metrics.
type Scrape struct {
	// URLs are on this host.
	URLs []string
}

// reservedPorts are those of the sidecar: its own answers, which would be a circle, or no metrics at all.
// The list is Istio's, and the bridge's.
func reservedPorts() map[uint16]string {
	return map[uint16]string{
		2379: "the etcd port", 15000: "the admin port", 15001: "captured outbound connections", 15004: "istiod's debug information",
		15006: "captured inbound connections", 15008: "HBONE", 15011: "endpoints of the overlay", 15020: "this port",
		15021: "readiness", 15053: "DNS", 15090: "APISIX's metrics, which are merged already", 15099: "the internal port",
	}
}

// ParseScrape reads the environment variable ISTIO_PROMETHEUS_ANNOTATIONS, in which the injector leaves the
// pod's annotations prometheus.io/{scrape,port,path}; empty, or with scrape "false", there is nothing to
// scrape and nil is returned. own is the port of the merged metrics.
func ParseScrape(text string, own uint16) (*Scrape, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // nil is what Config calls none
	}
	type target struct {
		Port string `json:"port"`
		Path string `json:"path"`
	}
	var annotations struct {
		Scrape string `json:"scrape"`
		target
		Targets []target `json:"targets"`
	}
	if err := json.Unmarshal([]byte(text), &annotations); err != nil {
		return nil, err
	}
	if annotations.Scrape == "false" {
		return nil, nil //nolint:nilnil // see above
	}
	targets := annotations.Targets
	if len(targets) == 0 {
		if annotations.Port == "" {
			annotations.Port = "80" // as Prometheus' usual configuration has it
		}
		targets = []target{annotations.target}
	}
	reserved := reservedPorts()
	reserved[own] = "this port"
	s := &Scrape{}
	var errs []error
	for _, t := range targets {
		port, err := strconv.ParseUint(t.Port, 10, 16)
		if err != nil || port == 0 {
			errs = append(errs, fmt.Errorf("port %q: want a number from 1 to 65535", t.Port))
			continue
		}
		if use, ok := reserved[uint16(port)]; ok {
			errs = append(errs, fmt.Errorf("port %d has no metrics of the application: it is for %s", port, use))
			continue
		}
		if t.Path == "" {
			t.Path = "/metrics"
		}
		if !strings.HasPrefix(t.Path, "/") {
			t.Path = "/" + t.Path
		}
		at, err := url.Parse("http://" + net.JoinHostPort("localhost", strconv.FormatUint(port, 10)) + t.Path)
		if err != nil {
			errs = append(errs, fmt.Errorf("path %q: %w", t.Path, err))
			continue
		}
		s.URLs = append(s.URLs, at.String())
	}
	return s, errors.Join(errs...)
}
