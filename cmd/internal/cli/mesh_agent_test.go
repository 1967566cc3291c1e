package cli

import (
	"strings"
	"testing"
)

func TestTheCommandOfMeshAgentIsUnderstood(t *testing.T) {
	for _, c := range []struct {
		args []string
		line string
		want []string
	}{
		{
			[]string{
				"--run-mode", "bundle", "--provisioner", "xds-v3-grpc", "--xds-config-source", "grpc://istiod.istio-system.svc.cluster.local:15010",
				"--grpc-listen", "127.0.0.1:17739", "--etcd-key-prefix", "/mesh", "--apisix-bin-path", "/usr/bin/apisix", "--apisix-home-path=/opt/apisix", "--log-level", "debug", "--log-output=stderr",
			},
			"meshbridge run --mode sidecar --xds grpc://istiod.istio-system.svc.cluster.local:15010 --listen 127.0.0.1:17739 --prefix /mesh --apisix-bin /usr/bin/apisix --apisix-home /opt/apisix --log-level=debug\n",
			[]string{"mode: sidecar\n", "xds: grpc://istiod.istio-system.svc.cluster.local:15010\n", "listen: 127.0.0.1:17739\n", "prefix: /mesh\n", "profile: direct\n", "log-level: debug\n"},
		},
		{
			[]string{"--xds-watch-files", "/etc/xds", "--log-level=fatal", "--insecure-listen"},
			"meshbridge run --mode standalone --xds file:/etc/xds --log-level critical --insecure-listen=true\n",
			[]string{"xds: file:/etc/xds\n", "log-level: critical\n", "insecure-listen: \"true\"\n"},
		},
	} {
		code, out, errs := command(t, nil, append(append([]string{"sidecar"}, c.args...), "--print-config")...)
		if code != exitOK || !strings.Contains(errs, c.line) {
			t.Errorf("exit code %d, stderr:\n%s\nwant in it:\n%s", code, errs, c.line)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
	}
}

func TestWhatMeshAgentHadAndIsNotThereIsRefused(t *testing.T) {
	for want, args := range map[string][]string{
		"redirect it, with 2>/var/log/agent.log": {"--xds-watch-files=/x", "--log-output", "/var/log/agent.log"},
		"2 paths given":                          {"--xds-watch-files=/x,/y"},
		"0 paths given":                          {},
		"needs --xds-config-source":              {"--provisioner", "xds-v3-grpc"},
		`--provisioner "xds-v2"`:                 {"--provisioner", "xds-v2"},
		`--run-mode "both"`:                      {"--run-mode", "both"},
		"--apisix-user":                          {"--apisix-user", "nobody"},
	} {
		if code, _, errs := command(t, nil, append([]string{"sidecar"}, args...)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%v: exit code %d, stderr %q, want %q in it", args, code, errs, want)
		}
	}
}
