package cli

import (
	"strings"
	"testing"
)

func TestIptablesShowsWhatItWouldDo(t *testing.T) {
	for _, c := range []struct {
		name    string
		environ []string
		args    []string
		want    []string
		not     []string
	}{
		{"mesh", nil, []string{"iptables", "-n"}, []string{
			"--to-ports 15001\n", "--to-ports 15006\n", "-p tcp --dport 22 -j RETURN", "-A ISTIO_OUTPUT -j ISTIO_REDIRECT\n", "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT\n",
		}, []string{"::1/128"}},
		{"direct, with IPv6", nil, []string{"iptables", "--dry-run", "--profile", "direct", "--ipv6=on", "--inbound-ports", "80, 8080"}, []string{
			"--to-ports 9080\n", "--to-ports 9081\n", "--dport 8080 -j ISTIO_IN_REDIRECT", "::1/128",
		}, []string{"-p tcp -j ISTIO_IN_REDIRECT"}},
		{"settings from the environment", []string{"MESHBRIDGE_EXCLUDE_OUTBOUND_PORTS=3306"}, []string{"iptables", "-n"}, []string{"-p udp --dport 3306 -j RETURN"}, nil},
		{"Istio's letters replace defaults", nil, []string{"iptables", "-n", "-b", "80", "-i", "10.0.0.0/8", "-u", "7", "-d", ""}, []string{
			"--dport 80 -j ISTIO_IN_REDIRECT", "-d 10.0.0.0/8 -j ISTIO_REDIRECT", "--uid-owner 7 ", "--gid-owner 7 ",
		}, []string{"--uid-owner 1337", "--dport 22 "}},
		{"Istio's program", nil, []string{"istio-iptables", "-n", "-u", "1337", "--unknown"}, []string{"--to-ports 15001\n"}, []string{"ISTIO_OUTPUT -j ISTIO_REDIRECT", "PREROUTING"}},
		{"as the stock template runs it", []string{"ISTIO_META_DNS_CAPTURE=true", "INVALID_DROP=true", "ISTIO_OUTBOUND_OWNER_GROUPS=java,202", "ISTIO_SERVICE_EXCLUDE_CIDR=10.9.0.0/16", "ISTIO_LOCAL_EXCLUDE_PORTS=9"}, []string{
			"istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020", "--log_output_level=default:info", "--log_as_json", "--force-apply", "--dry-run", "--dns-servers=10.96.0.10",
		}, []string{
			"--dport 15020 -j RETURN", "-j ISTIO_REDIRECT\n", "-d 10.96.0.10/32 -j REDIRECT --to-port 15053", "ISTIO_DROP", "! --gid-owner 202",
		}, []string{"10.9.0.0/16", "--dport 9 "}},
		{"as mesh-agent's users run it", nil, []string{"iptables", "-n", "--apisix-port=9080", "--apisix-inbound-capture-port=9081", "--apisix-user=nobody", "--inbound-ports=*", "--outbound-ports=80", "--outbound-exclude-ports=22", "--inbound-interception-mode=REDIRECT"}, []string{
			"--to-ports 9080\n", "--to-ports 9081\n", "--uid-owner nobody", "--dport 80 -j ISTIO_REDIRECT",
		}, nil},
	} {
		code, out, errs := command(t, c.environ, c.args...)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s", c.name, code, errs)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in:\n%s", c.name, want, out)
			}
		}
		for _, not := range c.not {
			if strings.Contains(out, not) {
				t.Errorf("%s: %q in:\n%s", c.name, not, out)
			}
		}
	}
}

func TestIptablesRefusesWhatItCannotDo(t *testing.T) {
	for want, args := range map[string][]string{
		`mode "TPROXY"`:     {"iptables", "-n", "-m", "TPROXY"},
		"--native-nftables": {"istio-iptables", "-n", "--native-nftables"},
		"--cni-mode":        {"istio-iptables", "-n", "--network-namespace=/x"},
		"gateway":           {"iptables", "-n", "--profile", "gateway"},
		`"http"`:            {"iptables", "-n", "--inbound-ports", "http"},
		"--ipv6":            {"iptables", "-n", "--ipv6", "maybe"},
		"--dns-servers":     {"iptables", "-n", "--redirect-dns", "--dns-servers", "kube-dns"},
		"--loopback":        {"iptables", "-n", "--loopback", "127.0.0.1"},
		"unknown flag":      {"iptables", "-n", "--unknown"},
	} {
		if code, _, errs := command(t, nil, args...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%v: exit code %d, stderr %q, want %q in it", args, code, errs, want)
		}
	}
}
