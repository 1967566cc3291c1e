package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/iptables"
)

// iptablesOptions say what is redirected. Each setting has a readable flag, and where Istio's program has
// one, its name and letter.
type iptablesOptions struct {
	profile                     string
	outbound, inbound, tunnel   uint16
	users, groups               []string
	mode                        string
	inboundPorts, notInbound    []string
	outboundRanges, notRanges   []string
	outboundPorts, notOutbound  []string
	ownerGroups, notOwnerGroups []string
	virtual, notInterfaces      []string
	dns, allDNS                 bool
	dnsPort                     uint16
	dnsServers                  []string
	dropInvalid                 bool
	loopback                    string
	ipv6                        string
	variant                     string
	dryRun                      bool

	istio istioIptablesOptions
}

// istioIptablesOptions are flags of Istio's program alone.
type istioIptablesOptions struct {
	dualStack                                  bool
	skipApply, cleanup, validate               bool
	native, cni, reconcile, force              bool
	namespace, tproxyMark, tproxyTable, output string
	probePort                                  uint16
	probeTimeout                               time.Duration
	asJSON                                     bool
}

// istioIptablesFlags are flags of Istio's program that are variables as well, in capitals.
var istioIptablesFlags = []string{
	"inbound-capture-port", "inbound-tunnel-port", "proxy-uid", "proxy-gid", "istio-inbound-interception-mode",
	"istio-inbound-ports", "istio-local-exclude-ports", "istio-exclude-interfaces", "istio-service-cidr",
	"istio-service-exclude-cidr", "istio-outbound-ports", "istio-local-outbound-ports-exclude", "kube-virt-interfaces",
	"dry-run", "iptables-probe-port", "probe-timeout", "skip-rule-apply", "run-validation", "redirect-dns",
	"drop-invalid", "capture-all-dns", "dual-stack", "network-namespace", "cni-mode", "cleanup-only",
	"native-nftables", "force-iptables-binary",
}

// istioIptablesVariables are those with other names.
var istioIptablesVariables = [][2]string{
	{"redirect-dns", "ISTIO_META_DNS_CAPTURE"},
	{"drop-invalid", "INVALID_DROP"},
	{"dual-stack", "ISTIO_DUAL_STACK"},
	{"loopback", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"},
	{"owner-groups", "ISTIO_OUTBOUND_OWNER_GROUPS"},
	{"exclude-owner-groups", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"},
}

// add adds the flags; asIstio takes Istio's defaults, which redirect nothing that is not named.
func (o *iptablesOptions) add(f *pflag.FlagSet, asIstio bool) {
	all, own := []string{iptables.Any}, []string{"22", "15020", "15021", "15090"}
	if asIstio {
		all, own = nil, nil
	}
	f.StringVar(&o.profile, "profile", "mesh", "`mesh|direct`: mesh redirects to the bridge, at 15001 and 15006, direct to APISIX, at 9080 and 9081")
	ports := func(to *uint16, value uint16, usage string, names ...string) {
		flags(f, names, func(f *pflag.FlagSet, name, letter, usage string) { f.Uint16VarP(to, name, letter, value, usage) }, usage)
	}
	list := func(to *[]string, value []string, usage string, names ...string) {
		flags(f, names, func(f *pflag.FlagSet, name, letter, usage string) { f.StringSliceVarP(to, name, letter, value, usage) }, usage)
	}
	ports(&o.outbound, 0, "`port` to which outbound connections are redirected; default: by the profile", "outbound-port", "envoy-port/p", "apisix-port")
	ports(&o.inbound, 0, "`port` to which inbound connections are redirected; default: by the profile", "inbound-port", "inbound-capture-port/z", "apisix-inbound-capture-port")
	ports(&o.tunnel, 15008, "`port` of HBONE, which is left alone", "tunnel-port", "inbound-tunnel-port/e")
	list(&o.users, nil, "`users` of the proxy, whose connections are not redirected; default: istio-proxy where there is one, else 1337", "proxy-uid/u", "apisix-user")
	list(&o.groups, nil, "`groups` of the proxy; default: as the users", "proxy-gid/g")
	list(&o.inboundPorts, all, "`ports` whose inbound connections are redirected, * for all", "inbound-ports", "istio-inbound-ports/b")
	list(&o.notInbound, own, "inbound `ports` that are left alone where all are redirected", "exclude-inbound-ports", "istio-local-exclude-ports/d", "inbound-exclude-ports")
	list(&o.outboundRanges, all, "address `ranges` to which connections are redirected, * for all", "outbound-ranges", "istio-service-cidr/i")
	list(&o.notRanges, nil, "address `ranges` to which connections are left alone", "exclude-outbound-ranges", "istio-service-exclude-cidr/x")
	list(&o.outboundPorts, nil, "outbound `ports` that are redirected whatever their address", "outbound-ports", "istio-outbound-ports/q")
	list(&o.notOutbound, nil, "outbound `ports` that are left alone", "exclude-outbound-ports", "istio-local-outbound-ports-exclude/o", "outbound-exclude-ports")
	list(&o.ownerGroups, []string{iptables.Any}, "`groups` whose outbound connections are redirected, * for all", "owner-groups")
	list(&o.notOwnerGroups, nil, "`groups` whose outbound connections are left alone where those of all are redirected", "exclude-owner-groups")
	list(&o.virtual, nil, "`interfaces` of virtual machines: what comes in there is outbound", "virtual-interfaces", "kube-virt-interfaces/k")
	list(&o.notInterfaces, nil, "`interfaces` that are left alone", "exclude-interfaces", "istio-exclude-interfaces/c")
	f.BoolVar(&o.dns, "redirect-dns", false, "redirect requests for names to the workload's DNS server")
	f.BoolVar(&o.allDNS, "capture-all-dns", false, "with --redirect-dns, those to every server, not only to --dns-servers")
	f.StringSliceVar(&o.dnsServers, "dns-servers", nil, "`addresses` of DNS servers whose requests are redirected; default: those of /etc/resolv.conf")
	f.Uint16Var(&o.dnsPort, "dns-port", 15053, "`port` of the workload's DNS server")
	f.BoolVar(&o.dropInvalid, "drop-invalid", false, "drop packets that belong to no connection, instead of resetting it")
	f.StringVar(&o.loopback, "loopback", "127.0.0.1/32", "`range` through which containers of a pod speak to each other")
	f.StringVar(&o.ipv6, "ipv6", "auto", "`auto|on|off`: rules for IPv6; auto makes them where the host has an address of it")
	flags(f, []string{"variant", "force-iptables-binary"}, func(f *pflag.FlagSet, name, letter, usage string) {
		f.StringVarP(&o.variant, name, letter, "", usage)
	}, "`legacy|nft`: programs to use; default: the legacy ones where they have rules, else those for nftables")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "print the input for iptables-restore and ip6tables-restore, and change nothing")

	hidden := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags(hidden, []string{"istio-inbound-interception-mode/m", "inbound-interception-mode"}, func(f *pflag.FlagSet, name, letter, usage string) {
		f.StringVarP(&o.mode, name, letter, "", usage)
	}, "")
	i := &o.istio
	hidden.BoolVar(&i.dualStack, "dual-stack", false, "")
	hidden.BoolVar(&i.skipApply, "skip-rule-apply", false, "")
	hidden.BoolVar(&i.cleanup, "cleanup-only", false, "")
	hidden.BoolVar(&i.validate, "run-validation", false, "")
	hidden.BoolVar(&i.native, "native-nftables", false, "")
	hidden.BoolVar(&i.cni, "cni-mode", false, "")
	hidden.BoolVar(&i.reconcile, "reconcile", false, "") // always done
	hidden.BoolVar(&i.force, "force-apply", false, "")   // always done
	hidden.StringVar(&i.namespace, "network-namespace", "", "")
	hidden.StringVarP(&i.tproxyMark, "istio-inbound-tproxy-mark", "t", "", "")
	hidden.StringVarP(&i.tproxyTable, "istio-inbound-tproxy-route-table", "r", "", "")
	hidden.Uint16Var(&i.probePort, "iptables-probe-port", 15002, "")
	hidden.DurationVar(&i.probeTimeout, "probe-timeout", 5*time.Second, "")
	hidden.StringVar(&i.output, "log_output_level", "", "")
	hidden.BoolVar(&i.asJSON, "log_as_json", false, "")
	hidden.VisitAll(func(flag *pflag.Flag) { flag.Hidden = true })
	f.AddFlagSet(hidden)
}

// flags adds a flag under each of the names, NAME or NAME/LETTER; only the first is shown.
func flags(f *pflag.FlagSet, names []string, add func(f *pflag.FlagSet, name, letter, usage string), usage string) {
	for i, n := range names {
		name, letter, _ := strings.Cut(n, "/")
		add(f, name, letter, usage)
		f.Lookup(name).Hidden = i > 0
	}
}

// setFromIstio takes the variables that Istio's program takes; flags win over them.
func (*iptablesOptions) setFromIstio(f *pflag.FlagSet, getenv func(string) string) error {
	values := map[string]string{}
	for _, name := range istioIptablesFlags {
		if value := getenv(strings.ToUpper(strings.ReplaceAll(name, "-", "_"))); value != "" {
			values[name] = value
		}
	}
	for _, v := range istioIptablesVariables {
		if value := getenv(v[1]); value != "" {
			values[v[0]] = value
		}
	}
	return setDefaults(f, values)
}

// config makes what the options describe.
func (o *iptablesOptions) config(a *app) (*iptables.Config, error) {
	if o.mode != "" && o.mode != "REDIRECT" {
		return nil, fmt.Errorf("interception mode %q is not supported, only REDIRECT: nginx cannot bind to addresses of others", o.mode)
	}
	switch {
	case o.istio.native:
		return nil, errors.New("--native-nftables: rules are made with iptables, of which the variant nft programs the same tables of the kernel: leave global.nativeNftables off")
	case o.istio.cni || o.istio.namespace != "":
		return nil, errors.New("--cni-mode, --network-namespace: enter the network namespace first (ip netns exec, nsenter), or use Istio's CNI plugin")
	}
	c := &iptables.Config{
		OutboundPort: o.outbound, InboundPort: o.inbound, TunnelPort: o.tunnel,
		Users: trimmed(o.users), Groups: trimmed(o.groups),
		InboundPorts: trimmed(o.inboundPorts), ExcludedInboundPorts: trimmed(o.notInbound),
		OutboundRanges: trimmed(o.outboundRanges), ExcludedOutboundRanges: trimmed(o.notRanges),
		OutboundPorts: trimmed(o.outboundPorts), ExcludedOutboundPorts: trimmed(o.notOutbound),
		OwnerGroups: trimmed(o.ownerGroups), ExcludedOwnerGroups: trimmed(o.notOwnerGroups),
		VirtualInterfaces: trimmed(o.virtual), ExcludedInterfaces: trimmed(o.notInterfaces),
		DropInvalid: o.dropInvalid,
	}
	outbound, inbound := uint16(15001), uint16(15006)
	switch o.profile {
	case "mesh":
	case "direct":
		outbound, inbound = 9080, 9081
	default:
		return nil, fmt.Errorf("--profile %q: want mesh or direct; a gateway's connections need no redirection", o.profile)
	}
	if c.OutboundPort == 0 {
		c.OutboundPort = outbound
	}
	if c.InboundPort == 0 {
		c.InboundPort = inbound
	}
	if len(c.Users) == 0 {
		c.Users = []string{proxyUser(a.getenv("ENVOY_USER"))}
	}
	if len(c.Groups) == 0 {
		c.Groups = c.Users
	}
	var err error
	if c.Loopback, err = netip.ParsePrefix(o.loopback); err != nil {
		return nil, fmt.Errorf("--loopback: %w", err)
	}
	if c.IPv6, err = o.hasIPv6(a.addresses); err != nil {
		return nil, err
	}
	if o.dns {
		if c.DNS, err = o.dnsConfig(); err != nil {
			return nil, err
		}
	}
	return c, c.Validate()
}

func trimmed(values []string) (all []string) {
	for _, v := range values {
		if v = strings.TrimSpace(v); v != "" {
			all = append(all, v)
		}
	}
	return all
}

// proxyUser is the number of Istio's user, which its packages for machines make.
func proxyUser(name string) string {
	if name == "" {
		name = "istio-proxy"
	}
	if u, err := user.Lookup(name); err == nil {
		return u.Uid
	}
	return "1337"
}

func (o *iptablesOptions) hasIPv6(addresses func() ([]net.Addr, error)) (bool, error) {
	switch o.ipv6 {
	case "on":
		return true, nil
	case "off":
		return false, nil
	case "auto":
	default:
		return false, fmt.Errorf("--ipv6 %q: want auto, on or off", o.ipv6)
	}
	ips, err := withInterfaces(nil, addresses)
	if err != nil {
		return false, err
	}
	for _, ip := range ips {
		if ip.Is6() {
			return true, nil
		}
	}
	return o.istio.dualStack, nil
}

func (o *iptablesOptions) dnsConfig() (*iptables.DNS, error) {
	c := &iptables.DNS{Port: o.dnsPort}
	if o.allDNS {
		return c, nil
	}
	servers := trimmed(o.dnsServers)
	if len(servers) == 0 {
		file, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			return nil, fmt.Errorf("--redirect-dns: %w", err)
		}
		for line := range strings.Lines(string(file)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "nameserver" {
				servers = append(servers, fields[1])
			}
		}
	}
	c.Servers = []netip.Addr{}
	for _, s := range servers {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("--dns-servers: %w", err)
		}
		c.Servers = append(c.Servers, ip.WithZone(""))
	}
	return c, nil
}
