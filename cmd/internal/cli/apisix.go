package cli

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/apisixconfig"
	"meshbridge/translate/apisix"
)

// apisixOptions say which APISIX it is that is served, and what stands in front of it.
type apisixOptions struct {
	profile, version          string
	outboundPort, inboundPort uint16
}

func (o *apisixOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.profile, "profile", "direct", "what stands in front of APISIX: `mesh|direct|gateway`")
	f.StringVar(&o.version, "apisix-version", apisix.Version{}.OrDefault().String(), "`version` of APISIX to translate for")
	f.Uint16Var(&o.outboundPort, "apisix-outbound-port", 9080, "APISIX's `port` that outbound connections are redirected to (profile direct)")
	f.Uint16Var(&o.inboundPort, "apisix-inbound-port", 9081, "APISIX's `port` that inbound connections are redirected to (profile direct)")
}

func (o *apisixOptions) parsedVersion() (apisix.Version, error) {
	v, err := apisix.ParseVersion(o.version)
	if err != nil {
		return v, fmt.Errorf("--apisix-version: %w", err)
	}
	return v, nil
}

// proxyPortOptions are the ports on which APISIX expects connections from capture.
type proxyPortOptions struct {
	http, https uint16
	streams     string
}

func (o *proxyPortOptions) add(f *pflag.FlagSet) {
	f.Uint16Var(&o.http, "apisix-http-pp", 15480, "APISIX's `port` for HTTP with a PROXY protocol header (profile mesh)")
	f.Uint16Var(&o.https, "apisix-https-pp", 15481, "APISIX's `port` for HTTPS with a PROXY protocol header (profile mesh)")
	f.StringVar(&o.streams, "apisix-stream-ports", "16000-16511", "APISIX's `ports` for TCP with a PROXY protocol header: one for each TCP service that is used (profile mesh)")
}

// streamPorts returns the range of the stream ports.
func (o *proxyPortOptions) streamPorts() (first, last uint16, err error) {
	from, to, ok := strings.Cut(o.streams, "-")
	a, errFrom := strconv.ParseUint(from, 10, 16)
	b, errTo := strconv.ParseUint(to, 10, 16)
	if !ok || errFrom != nil || errTo != nil || a == 0 || b < a {
		return 0, 0, fmt.Errorf("--apisix-stream-ports %q: want FIRST-LAST, such as 16000-16511", o.streams)
	}
	return uint16(a), uint16(b), nil
}

type apisixConfigOptions struct {
	apisix             apisixOptions
	ports              proxyPortOptions
	etcd, plugins      []string
	prefix             string
	http, https        []uint
	status, prometheus string
	edge               bool
}

func newAPISIXConfig(a *app) *cobra.Command {
	var o apisixConfigOptions
	cmd := &cobra.Command{
		Use:   "apisix-config",
		Short: "Print APISIX's static configuration file for a profile",
		Long: `Print the config.yaml of an APISIX that the bridge serves: the ports on which it
is reached in the profile, the nginx settings that translation relies on, and
the bridge as its etcd. Everything else comes over etcd at run time.`,
		Example: `  meshbridge apisix-config --profile mesh > /usr/local/apisix/conf/config.yaml
  meshbridge apisix-config --profile gateway --http-ports 8080 --https-ports 8443
  meshbridge apisix-config --profile direct --plugins my-plugin,other-plugin`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withConfig(a, cmd, func() error {
				config, err := o.config()
				if err != nil {
					return usageError{err}
				}
				data, err := apisixconfig.Render(config)
				if err != nil {
					return usageError{err}
				}
				_, err = a.stdout.Write(data)
				return err
			})
		},
	}
	f := cmd.Flags()
	o.apisix.add(f)
	o.ports.add(f)
	f.StringSliceVar(&o.etcd, "etcd", []string{"http://127.0.0.1:2379"}, "`URLs` of the bridge's etcd port")
	f.StringVar(&o.prefix, "prefix", "/apisix", "etcd `prefix`")
	f.UintSliceVar(&o.http, "http-ports", nil, "`ports` on which a gateway serves HTTP (profile gateway)")
	f.UintSliceVar(&o.https, "https-ports", nil, "`ports` on which a gateway serves HTTPS (profile gateway)")
	f.StringVar(&o.status, "apisix-status", "127.0.0.1:7085", "`address` of APISIX's readiness")
	f.StringVar(&o.prometheus, "apisix-metrics", "0.0.0.0:15090", "`address` of APISIX's metrics, /stats/prometheus")
	f.StringSliceVar(&o.plugins, "plugins", nil, "`names` of plugins to load besides APISIX's defaults")
	f.BoolVar(&o.edge, "edge", false, "replace the x-forwarded headers of clients, as a gateway does; profile gateway always does")
	addConfigFlags(cmd)
	return cmd
}

func (o *apisixConfigOptions) config() (c apisixconfig.Config, err error) {
	c = apisixconfig.Config{
		Profile: o.apisix.profile, Etcd: o.etcd, Prefix: o.prefix,
		HTTPPort: o.ports.http, HTTPSPort: o.ports.https,
		OutboundPort: o.apisix.outboundPort, InboundPort: o.apisix.inboundPort,
		Edge: o.edge || o.apisix.profile == "gateway", Plugins: o.plugins,
	}
	if c.Version, err = o.apisix.parsedVersion(); err != nil {
		return c, err
	}
	if c.FirstStreamPort, c.LastStreamPort, err = o.ports.streamPorts(); err != nil {
		return c, err
	}
	if c.Status, err = netip.ParseAddrPort(o.status); err != nil {
		return c, fmt.Errorf("--apisix-status: %w", err)
	}
	if c.Prometheus, err = netip.ParseAddrPort(o.prometheus); err != nil {
		return c, fmt.Errorf("--apisix-metrics: %w", err)
	}
	if c.GatewayPorts, err = portNumbers("http-ports", o.http); err != nil {
		return c, err
	}
	c.GatewayTLSPorts, err = portNumbers("https-ports", o.https)
	return c, err
}

func portNumbers(flag string, values []uint) ([]uint16, error) {
	ports := make([]uint16, len(values))
	for i, v := range values {
		if v == 0 || v > 65535 {
			return nil, fmt.Errorf("--%s: %d is no port number", flag, v)
		}
		ports[i] = uint16(v)
	}
	return ports, nil
}
