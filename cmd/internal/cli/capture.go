package cli

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"meshbridge/capture"
	"meshbridge/capture/dns"
	"meshbridge/cmd/internal/allocate"
	"meshbridge/cmd/internal/bridge"
	"meshbridge/identity"
	"meshbridge/xds"
)

// captureOptions say how connections reach APISIX in profile mesh.
type captureOptions struct {
	on                bool
	outbound, inbound []string
	overlay           string
	dns               []string
	identity          string
	trustDomain       string
	maxConnections    int
	ports             proxyPortOptions
}

// overlayPrefix holds the addresses that stand for endpoints: loopback addresses, which cost nothing,
// that nothing else uses.
var overlayPrefix = netip.MustParsePrefix("127.96.0.0/11")

// defaultNumbers are what run gives out unless told otherwise. The number of a name depends on the name
// alone as long as there are many more numbers than names.
func defaultNumbers() allocate.Config {
	return allocate.Config{FirstPort: 16000, LastPort: 16511, Overlay: overlayPrefix}
}

func (o *captureOptions) add(f *pflag.FlagSet) {
	f.BoolVar(&o.on, "capture", true, "in profile mesh, accept connections in front of APISIX as Envoy would: redirected ones, those of listeners, mesh TLS")
	f.StringSliceVar(&o.outbound, "capture-outbound", []string{"0.0.0.0:15001", "[::]:15001"}, "`addresses|off` to which outbound connections are redirected")
	f.StringSliceVar(&o.inbound, "capture-inbound", []string{"0.0.0.0:15006", "[::]:15006"}, "`addresses|off` to which inbound connections are redirected")
	f.StringVar(&o.overlay, "capture-overlay", "0.0.0.0:15011", "`address` where APISIX connects to for endpoints with TLS")
	f.StringSliceVar(&o.dns, "capture-dns", []string{"127.0.0.1:15053", "[::1]:15053"}, "`addresses|off` of the workload's DNS server, which knows the mesh's names and asks /etc/resolv.conf's servers for others")
	f.IntVar(&o.maxConnections, "capture-max-connections", 0, "`number` of connections that capture serves at a time; 0 is without limit")
	f.StringVar(&o.identity, "identity", "", "where the workload's certificate is from: `istiod|sds:SOCKET|files:DIR|off`;\ndefault: istiod with --xds grpcs://, else off")
	f.StringVar(&o.trustDomain, "trust-domain", "", "`domain` of the workload's identity; default: $TRUST_DOMAIN, else cluster.local")
	o.ports.add(f)
}

// config returns nil where nothing is captured.
func (o *captureOptions) config(a *app, profile string, source *sourceOptions, node xds.NodeConfig) (*bridge.CaptureConfig, error) {
	if profile != "mesh" || !o.on {
		return nil, nil //nolint:nilnil // nil is what bridge.Config calls off
	}
	c := &bridge.CaptureConfig{Overlay: overlayPrefix}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	c.Server = capture.Config{
		HTTP:  netip.AddrPortFrom(loopback, o.ports.http),
		HTTPS: netip.AddrPortFrom(loopback, o.ports.https), Stream: loopback,
		MaxConnections: o.maxConnections,
	}
	var err error
	if c.FirstStreamPort, c.LastStreamPort, err = o.ports.streamPorts(); err != nil {
		return nil, err
	}
	if c.Server.Outbound, err = addresses("capture-outbound", o.outbound); err != nil {
		return nil, err
	}
	if c.Server.Inbound, err = addresses("capture-inbound", o.inbound); err != nil {
		return nil, err
	}
	nameServers, err := addresses("capture-dns", o.dns)
	if err != nil {
		return nil, err
	}
	if len(nameServers) > 0 {
		c.DNS = &dns.Config{Addresses: nameServers, Namespace: node.Namespace, Domain: node.DNSDomain}
		source.nameTable = true
	}
	if c.Server.Overlay, err = netip.ParseAddrPort(o.overlay); err != nil {
		return nil, fmt.Errorf("--capture-overlay: %w", err)
	}
	c.NewIdentity, err = o.newIdentity(a, source, node)
	return c, err
}

// addresses leaves out IPv6 where the host has none.
func addresses(flag string, values []string) ([]netip.AddrPort, error) {
	if len(values) == 1 && values[0] == bridge.Off {
		return nil, nil
	}
	_, err := os.Stat("/proc/net/if_inet6")
	hasIPv6 := !errors.Is(err, os.ErrNotExist)
	var all []netip.AddrPort
	for _, v := range values {
		a, err := netip.ParseAddrPort(v)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		if a.Addr().Is4() || hasIPv6 {
			all = append(all, a)
		}
	}
	return all, nil
}

type newIdentity func(prometheus.Registerer, *slog.Logger) (identity.Source, error)

// newIdentity returns the constructor of the source, nil for none.
func (o *captureOptions) newIdentity(a *app, source *sourceOptions, node xds.NodeConfig) (newIdentity, error) {
	kind, value, _ := strings.Cut(o.identity, ":")
	switch {
	case o.identity == bridge.Off:
		return nil, nil
	case kind == "sds" && value != "":
		return func(r prometheus.Registerer, log *slog.Logger) (identity.Source, error) {
			return identity.SDS(identity.SDSConfig{Socket: value, Logger: log, Registerer: r})
		}, nil
	case kind == "files" && value != "":
		return func(r prometheus.Registerer, log *slog.Logger) (identity.Source, error) {
			return identity.Files(identity.FilesConfig{Dir: value, Logger: log, Registerer: r})
		}, nil
	case o.identity != "" && o.identity != "istiod":
		return nil, fmt.Errorf("--identity %q: want istiod, sds:SOCKET, files:DIR or off", o.identity)
	}
	target, err := source.target(node)
	switch {
	case err != nil:
		return nil, err
	case target.Scheme == xds.SchemeTLS:
	case o.identity == "":
		return nil, nil
	default:
		return nil, errors.New("--identity istiod: istiod issues certificates on its TLS port, so --xds must be grpcs://HOST:PORT")
	}
	config := identity.IstiodConfig{
		Address: target.Address, ServerName: source.serverName,
		TokenFile: source.tokenFile, RootFile: source.rootCert,
		TrustDomain: cmp.Or(o.trustDomain, a.getenv("TRUST_DOMAIN")),
		Namespace:   node.Namespace, ServiceAccount: cmp.Or(node.ServiceAccount, "default"),
		ClusterID: node.ClusterID,
	}
	// The name and the form that Istio's agent knows it by.
	if ttl := a.getenv("SECRET_TTL"); ttl != "" {
		if config.TTL, err = time.ParseDuration(ttl); err != nil {
			return nil, fmt.Errorf("SECRET_TTL: %w", err)
		}
	}
	return func(r prometheus.Registerer, log *slog.Logger) (identity.Source, error) {
		config.Registerer, config.Logger = r, log
		return identity.Istiod(config)
	}, nil
}
