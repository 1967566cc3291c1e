package cli

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// podVariables are what the injector gives to the proxy's container.
func podVariables(more ...string) []string {
	return append([]string{
		"POD_NAME=client-0", "POD_NAMESPACE=shop", "INSTANCE_IP=10.0.0.7", "SERVICE_ACCOUNT=client",
		`PROXY_CONFIG={"discoveryAddress":"istiod-canary.istio-system.svc:15012","terminationDrainDuration":"12s"}`,
		"ISTIO_META_CLUSTER_ID=Kubernetes", "ISTIO_META_INTERCEPTION_MODE=REDIRECT",
	}, more...)
}

func TestTheCommandOfTheStockTemplateRunsTheBridge(t *testing.T) {
	stock := []string{
		"proxy", "sidecar", "--domain", "shop.svc.example.org", "--proxyLogLevel=warning",
		"--proxyComponentLogLevel=misc:error", "--log_output_level=default:info,xds:debug,cache:error", "--stsPort=15463", "--log_as_json",
		"--fromTheFuture", "value",
	}
	for _, c := range []struct {
		name    string
		environ []string
		args    []string
		want    []string
	}{
		{"sidecar", podVariables(), stock, []string{
			"# from default\nmode: sidecar\n", "# from default\nprofile: mesh\n", "# from default\nnode-type: sidecar\n",
			"# from flag --domain\ndomain: shop.svc.example.org\n", "# from default\nstatus: :15021\n", "# from default\nmetrics: :15020\n",
			"# from default\ndrain-time: 12s\n", "# from default\nlog-format: json\n", "# from default\nlog-level: info,xds:debug\n",
		}},
		{"no kind is a sidecar", podVariables(), []string{"proxy"}, []string{"node-type: sidecar\n"}},
		{"router", podVariables(), []string{"proxy", "router", "--proxyLogLevel=error"}, []string{
			"node-type: router\n", "profile: mesh\n", "log-level: error\n",
		}},
		{"flags and variables of ours win", podVariables("MESHBRIDGE_PROFILE=direct", "MESHBRIDGE_LOG_LEVEL=trace"), append(stock, "--metrics=off"), []string{
			"# from environment MESHBRIDGE_PROFILE\nprofile: direct\n", "# from environment MESHBRIDGE_LOG_LEVEL\nlog-level: trace\n",
			"# from flag --metrics\nmetrics: \"off\"\n",
		}},
	} {
		code, out, errs := command(t, c.environ, append(c.args, "--print-config")...)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s", c.name, code, errs)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in:\n%s", c.name, want, out)
			}
		}
		if strings.Contains(out, "stsPort") {
			t.Errorf("%s: flags of Istio's agent are no settings:\n%s", c.name, out)
		}
	}
}

func TestWhatTheAgentsFlagsCannotMeanIsNamed(t *testing.T) {
	cmd, _ := runCommand(&app{})
	o := agentOptions{}
	o.add(cmd.Flags())
	got := strings.Join(o.ignored([]string{
		"proxy", "sidecar", "--domain", "x", "--stsPort=1", "--log_as_json", "--fromTheFuture", "y", "--stsPort=2", "--log-level", "info",
	}, cmd.Flags()), " ")
	if want := "--stsPort --fromTheFuture"; got != want {
		t.Errorf("ignored are %q, want %q", got, want)
	}
}

func TestAnAgentThatCannotWorkSaysSo(t *testing.T) {
	for want, c := range map[string]struct{ environ, args []string }{
		"ISTIO_META_ENABLE_HBONE": {podVariables("ISTIO_META_ENABLE_HBONE=true"), []string{"proxy", "sidecar"}},
		"TPROXY":                  {podVariables("ISTIO_META_INTERCEPTION_MODE=TPROXY"), []string{"proxy", "sidecar"}},
		"waypoint":                {podVariables(), []string{"proxy", "waypoint"}},
		"POD_NAME":                {nil, []string{"proxy", "sidecar", "--xds=grpc://127.0.0.1:1"}},
	} {
		code, _, errs := command(t, c.environ, c.args...)
		if code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("exit code %d, stderr %q, want %q in it", code, errs, want)
		}
	}
}

func TestACertificateThatIsThereIsUsed(t *testing.T) {
	root := t.TempDir()
	o := &agentOptions{}
	a := &app{environ: func() []string { return podVariables() }}
	identity := func() string {
		t.Helper()
		settings, err := o.settings(a, "sidecar", root)
		if err != nil {
			t.Fatal(err)
		}
		return settings["identity"]
	}
	if got := identity(); got != "" {
		t.Errorf("nothing is there: identity %q", got)
	}
	directory := filepath.Join(root, workloadCredentials)
	if err := os.MkdirAll(directory, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := identity(); got != "" {
		t.Errorf("an empty directory, as the stock template mounts it: identity %q", got)
	}
	for _, name := range []string{"cert-chain.pem", "key.pem", "root-cert.pem"} {
		if err := os.WriteFile(filepath.Join(directory, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := identity(); got != "files:"+directory {
		t.Errorf("with files: identity %q", got)
	}
	// Below the working directory, so that the name is not too long for a socket.
	t.Chdir(root)
	if err := os.MkdirAll(filepath.Dir(workloadSocket), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", workloadSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if got := identity(); got != "sds:"+filepath.Join(root, workloadSocket) {
		t.Errorf("with the socket of another agent: identity %q", got)
	}
}

func TestLevelsOfIstiosAgent(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"", ""}:                               "",
		{"default:info", "warning"}:            "info",
		{"debug", ""}:                          "debug",
		{"xds:debug,default:warn", ""}:         "warn,xds:debug",
		{"all:none", ""}:                       "off",
		{"ads:debug", "error"}:                 "",
		{"", "warning,upstream:debug"}:         "warn",
		{"default:fatal,identity:info", "off"}: "critical,identity:info",
	} {
		if got := agentLevel(in[0], in[1]); got != want {
			t.Errorf("%v are %q, want %q", in, got, want)
		}
	}
}
