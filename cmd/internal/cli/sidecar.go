package cli

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/apisixconfig"
	"meshbridge/cmd/internal/apisixprocess"
	"meshbridge/cmd/internal/bridge"
)

// modeOptions say whether APISIX is started by the bridge.
type modeOptions struct {
	mode               string
	home, work         string
	apisix, openResty  string
	status, prometheus string
	plugins            []string
	http, https        []uint
}

func (o *modeOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.mode, "mode", "standalone", "`standalone|sidecar`: sidecar starts APISIX once there is something to serve, and ends with it")
	f.StringVar(&o.home, "apisix-home", "/usr/local/apisix", "APISIX's `directory` (mode sidecar)")
	f.StringVar(&o.work, "apisix-work-dir", "", "`directory` in which a copy of --apisix-home is made where that is read-only (mode sidecar)")
	f.StringVar(&o.apisix, "apisix-bin", "apisix", "APISIX's command line `program` (mode sidecar)")
	f.StringVar(&o.openResty, "openresty-bin", "/usr/local/openresty/bin/openresty", "OpenResty's `program` (mode sidecar)")
	f.StringVar(&o.status, "apisix-status", "127.0.0.1:7085", "`address` of APISIX's readiness (mode sidecar)")
	f.StringVar(&o.prometheus, "apisix-metrics", "0.0.0.0:15090", "`address` of APISIX's metrics, /stats/prometheus (mode sidecar)")
	f.UintSliceVar(&o.http, "http-ports", nil, "`ports` on which a gateway serves HTTP (mode sidecar, profile gateway)")
	f.UintSliceVar(&o.https, "https-ports", nil, "`ports` on which a gateway serves HTTPS (mode sidecar, profile gateway)")
	f.StringSliceVar(&o.plugins, "apisix-plugins", nil, "`names` of plugins that are loaded besides APISIX's defaults; mode sidecar sees to it")
}

// metrics is the address of APISIX's metrics; empty where the bridge has no APISIX.
func (o *modeOptions) metrics() string {
	if o.mode != "sidecar" {
		return ""
	}
	return o.prometheus
}

// file are the options of APISIX's configuration file.
func (o *modeOptions) file(apisix apisixOptions, ports proxyPortOptions, prefix, etcd string, edge bool) apisixConfigOptions {
	return apisixConfigOptions{
		apisix: apisix, ports: ports, prefix: prefix, etcd: []string{etcd},
		http: o.http, https: o.https, edge: edge,
		status: o.status, prometheus: o.prometheus, plugins: o.plugins,
	}
}

// config returns nil in mode standalone. edge is as apisixconfig has it.
func (o *modeOptions) config(apisix apisixOptions, ports proxyPortOptions, prefix string, edge bool, stdout, stderr io.Writer) (*bridge.APISIXConfig, error) {
	switch o.mode {
	case "standalone":
		return nil, nil //nolint:nilnil // nil is what bridge.Config calls off
	case "sidecar":
	default:
		return nil, fmt.Errorf("--mode %q: want standalone or sidecar", o.mode)
	}
	render := func(etcd string) ([]byte, error) {
		file := o.file(apisix, ports, prefix, etcd, edge)
		config, err := file.config()
		if err != nil {
			return nil, err
		}
		return apisixconfig.Render(config)
	}
	if _, err := render("http://127.0.0.1:2379"); err != nil {
		return nil, err
	}
	// In profile mesh traffic comes through capture, which knows its connections.
	var traffic []uint16
	switch apisix.profile {
	case "direct":
		traffic = []uint16{apisix.outboundPort, apisix.inboundPort}
	case "gateway":
		for _, port := range slices.Concat(o.http, o.https) {
			traffic = append(traffic, uint16(port))
		}
	}
	return &bridge.APISIXConfig{
		Process: apisixprocess.Config{
			Home: o.home, WorkDir: o.work, APISIX: o.apisix, OpenResty: o.openResty, Status: "http://" + o.status + "/status/ready",
			Stdout: stdout, Stderr: stderr, Ports: traffic,
		},
		Render: render,
	}, nil
}
