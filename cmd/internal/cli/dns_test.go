package cli

import (
	"net"
	"strings"
	"testing"
)

const scenarioWithNames = "../../../testdata/istiod/service-entry-client/xds"

func TestTranslateLeavesNamesAloneUnlessItIsToldToResolveThem(t *testing.T) {
	// A port that was free a moment ago, so that nothing leaves this host.
	unused, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := unused.LocalAddr().String()
	if err := unused.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"by default", nil, "APISIX resolves api.ext.example itself and uses"},
		{"with --resolve", []string{"--resolve", "--dns-servers", server}, "api.ext.example cannot be resolved: " + server},
	} {
		_, out, errs := command(t, nil, append([]string{"translate", "-f", scenarioWithNames, "--profile", "mesh"}, c.args...)...)
		if !strings.Contains(errs, c.want) || !strings.Contains(out, "host: api.ext.example") {
			t.Errorf("%s: no %q in:\n%s", c.name, c.want, errs)
		}
	}
}

func TestWrongDNSServersAreUsageErrors(t *testing.T) {
	for want, args := range map[string][]string{
		`"dns.example"`:     {"run", "--xds", "file:" + scenarioWithNames, "--dns-servers", "dns.example"},
		"needs DNS servers": {"translate", "-f", scenarioWithNames, "--resolve", "--dns-servers", "off"},
	} {
		if code, _, errs := command(t, nil, args...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%q: exit code %d, want %d and %q:\n%s", args, code, exitUsage, want, errs)
		}
	}
}
