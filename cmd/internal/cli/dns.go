package cli

import (
	"context"
	"errors"
	"fmt"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/bridge"
	"meshbridge/cmd/internal/dns"
	"meshbridge/translate"
	"meshbridge/xds"
)

// dnsOptions say how the names of STRICT_DNS clusters are resolved.
type dnsOptions struct{ servers []string }

func (o *dnsOptions) add(f *pflag.FlagSet) {
	f.StringSliceVar(&o.servers, "dns-servers", nil, "`ADDRESS[:PORT]|off`: servers that resolve the endpoints of ServiceEntries with resolution DNS;\n"+
		"default: those in /etc/resolv.conf. off leaves names to APISIX, which uses one address at a time")
}

// config returns nil where names are left to APISIX.
func (o *dnsOptions) config() (*dns.Config, error) {
	if len(o.servers) == 1 && o.servers[0] == bridge.Off {
		return nil, nil //nolint:nilnil // nil is what bridge.Config calls off
	}
	c := &dns.Config{}
	for _, text := range o.servers {
		server, err := dns.ParseServer(text)
		if err != nil {
			return nil, fmt.Errorf("--dns-servers: %w", err)
		}
		c.Servers = append(c.Servers, server)
	}
	return c, nil
}

// lookup resolves the names of a snapshot once.
func (o *dnsOptions) lookup(ctx context.Context, s *xds.Snapshot) (translate.Inputs, error) {
	config, err := o.config()
	if config == nil {
		return translate.Inputs{}, usageError{errors.Join(err, errors.New("--resolve: needs DNS servers"))}
	}
	var names []translate.HostName
	for r := range s.All(xds.ClusterType) {
		c, err := xds.Decode[*clusterpb.Cluster](r)
		if err != nil {
			return translate.Inputs{}, err
		}
		names = append(names, translate.HostNames(c)...)
	}
	answers := dns.Lookup(ctx, *config, names)
	return translate.Inputs{DNS: answers.Addresses, DNSErrors: answers.Errors}, nil
}
