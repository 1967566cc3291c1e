package conformance

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"istio.io/istio/pkg/log"
	"istio.io/istio/tools/common/config"
	"istio.io/istio/tools/istio-iptables/pkg/capture"
	"istio.io/istio/tools/istio-iptables/pkg/constants"
	"istio.io/istio/tools/istio-iptables/pkg/dependencies"
)

// recorder stands in for the programs, and keeps what Istio would have given to them.
type recorder struct{ v4, v6 string }

func (r *recorder) Run(_ *log.Scope, _ bool, cmd constants.IptablesCmd, version *dependencies.IptablesVersion, stdin io.ReadSeeker, _ ...string) (*bytes.Buffer, error) {
	if cmd == constants.IPTablesRestore {
		input, err := io.ReadAll(stdin)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(version.DetectedBinary, "ip6") {
			r.v6 += string(input)
		} else {
			r.v4 += string(input)
		}
	}
	return &bytes.Buffer{}, nil
}

func (r *recorder) DetectIptablesVersion(ipv6 bool) (dependencies.IptablesVersion, error) {
	if ipv6 {
		return dependencies.IptablesVersion{DetectedBinary: "ip6tables"}, nil
	}
	return dependencies.IptablesVersion{DetectedBinary: "iptables"}, nil
}

// pick returns some of the values, with commas between them.
func pick(random *rand.Rand, values ...string) string {
	var some []string
	for _, v := range values {
		if random.IntN(2) == 0 {
			some = append(some, v)
		}
	}
	return strings.Join(some, ",")
}

// options are random options of Istio's program with a rule for each.
func options(random *rand.Rand) (c *config.Config, flags []string) {
	c = config.DefaultConfig()
	set := func(to *string, flag, value string) {
		*to = value
		flags = append(flags, flag, value)
	}
	is := func() bool { return random.IntN(2) == 0 }
	set(&c.ProxyPort, "--envoy-port", fmt.Sprint(15001+random.IntN(2)))
	set(&c.InboundCapturePort, "--inbound-capture-port", fmt.Sprint(15006+100*random.IntN(2)))
	set(&c.InboundTunnelPort, "--inbound-tunnel-port", fmt.Sprint(15008+100*random.IntN(2)))
	set(&c.ProxyUID, "--proxy-uid", []string{"1337", "0", "1337,1338"}[random.IntN(3)])
	set(&c.ProxyGID, "--proxy-gid", []string{"1337", "0", "1337,1338"}[random.IntN(3)])
	set(&c.InboundInterceptionMode, "-m", "REDIRECT")
	set(&c.InboundPortsInclude, "-b", []string{"", "*", "80", pick(random, "80", "8000:9000", "443")}[random.IntN(4)])
	set(&c.InboundPortsExclude, "-d", pick(random, "15090", "15021", "22"))
	set(&c.OutboundIPRangesInclude, "-i", []string{"", "*", pick(random, "10.0.0.0/8", "fd00::/8", "127.0.0.0/8"), pick(random, "10.0.1.7/16", "::1/128")}[random.IntN(4)])
	set(&c.OutboundIPRangesExclude, "-x", pick(random, "10.1.0.0/16", "169.254.169.254/32", "fd01::/16"))
	set(&c.OutboundPortsInclude, "-q", pick(random, "443", "9000:9100"))
	set(&c.OutboundPortsExclude, "-o", pick(random, "3306", "6379"))
	set(&c.RerouteVirtualInterfaces, "-k", pick(random, "net0", "net1"))
	set(&c.ExcludeInterfaces, "-c", pick(random, "eth1", "eth2"))
	set(&c.HostIPv4LoopbackCidr, "--loopback", []string{"127.0.0.1/32", "127.0.0.0/8"}[random.IntN(2)])
	if is() {
		set(&c.OwnerGroupsInclude, "--owner-groups", []string{"java", "java,202"}[random.IntN(2)])
	} else {
		set(&c.OwnerGroupsExclude, "--exclude-owner-groups", pick(random, "root", "303"))
	}
	if c.RedirectDNS = is(); c.RedirectDNS {
		flags = append(flags, "--redirect-dns")
		if c.CaptureAllDNS = is(); c.CaptureAllDNS {
			flags = append(flags, "--capture-all-dns")
		} else {
			servers := []string{"10.96.0.10", "10.96.0.11", "fd96::a"}[random.IntN(2):][:1+random.IntN(2)]
			flags = append(flags, "--dns-servers="+strings.Join(servers, ","))
			for _, s := range servers {
				if netip.MustParseAddr(s).Is4() {
					c.DNSServersV4 = append(c.DNSServersV4, s)
				} else {
					c.DNSServersV6 = append(c.DNSServersV6, s)
				}
			}
		}
	}
	if c.DropInvalid = is(); c.DropInvalid {
		flags = append(flags, "--drop-invalid")
	}
	c.EnableIPv6 = is()
	flags = append(flags, "--ipv6="+map[bool]string{true: "on", false: "off"}[c.EnableIPv6])
	return c, flags
}

// rulesByChain takes what iptables-restore is given apart: the rules of each chain, in their order, which is
// all that counts.
func rulesByChain(t *testing.T, input string) map[string][]string {
	t.Helper()
	rules := map[string][]string{}
	table := ""
	for line := range strings.Lines(input) {
		switch fields := strings.Fields(line); {
		case len(fields) == 0 || fields[0] == "COMMIT" || fields[0] == "#":
		case strings.HasPrefix(fields[0], "*"):
			table = strings.TrimPrefix(strings.Join(fields, ""), "*")
		case fields[0] == "-N":
			rules[table+" "+fields[1]] = rules[table+" "+fields[1]]
		case fields[0] == "-A":
			chain := table + " " + fields[1]
			rules[chain] = append(rules[chain], strings.Join(fields[2:], " "))
		case fields[0] == "-I" && fields[2] == "1":
			chain := table + " " + fields[1]
			rules[chain] = slices.Insert(rules[chain], 0, strings.Join(fields[3:], " "))
		default:
			t.Fatalf("not understood: %s", line)
		}
	}
	return rules
}

// The rules of profile mesh are those of istio-iptables with the same options: each can take the place of the
// other.
func TestTheRulesAreIstios(t *testing.T) {
	scope := log.FindScope(log.DefaultScopeName) // it tells each input
	level := scope.GetOutputLevel()
	scope.SetOutputLevel(log.NoneLevel)
	defer scope.SetOutputLevel(level)
	random := rand.New(rand.NewPCG(1, 2))
	binary := binaries.Meshbridge
	for range 150 {
		c, flags := options(random)
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		istio := &recorder{}
		configurator, err := capture.NewIptablesConfigurator(c, istio)
		if err != nil {
			t.Fatal(err)
		}
		if err := configurator.Run(); err != nil {
			t.Fatalf("istio-iptables %v: %v", flags, err)
		}
		for _, verb := range []string{"iptables", "istio-iptables"} {
			out, err := exec.CommandContext(t.Context(), binary, append([]string{verb, "--dry-run"}, flags...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s %v: %v\n%s", verb, flags, err, out)
			}
			v4, v6, ok := strings.Cut(string(out), "# ip6tables-restore --noflush\n")
			if !ok {
				t.Fatalf("not understood:\n%s", out)
			}
			for family, pair := range map[string][2]string{"IPv4": {istio.v4, v4}, "IPv6": {istio.v6, v6}} {
				if diff := cmp.Diff(rulesByChain(t, pair[0]), rulesByChain(t, pair[1])); diff != "" {
					t.Errorf("%s %v, %s (-istio +ours):\n%s", verb, flags, family, diff)
				}
			}
		}
	}
}
