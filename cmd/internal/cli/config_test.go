package cli

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// command runs the command line with an environment and returns its exit code and output.
func command(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs bytes.Buffer
	a := &app{
		version: "test", stdout: &out, stderr: &errs, environ: func() []string { return environ },
		addresses: func() ([]net.Addr, error) { return nil, nil },
	}
	code = execute(ctx, a, args)
	return code, out.String(), errs.String()
}

func TestFlagWinsOverEnvironmentOverFileOverDefault(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meshbridge.yaml")
	content := "profile: gateway\nprefix: /from-file\nlisten: 127.0.0.1:1\nallow-unenforced: [a, b]\nhold-timeout: 7s\napisix-outbound-port: 9999\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"MESHBRIDGE_PREFIX=/from-env", "MESHBRIDGE_LISTEN=127.0.0.1:2", "MESHBRIDGE_CONFIG=" + file}
	code, out, errs := command(t, environ, "run", "--print-config", "--listen", "127.0.0.1:3")
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{
		"# from flag --listen\nlisten: 127.0.0.1:3\n",
		"# from environment MESHBRIDGE_PREFIX\nprefix: /from-env\n",
		"# from file " + file + "\nprofile: gateway\n",
		"# from file " + file + "\nallow-unenforced:\n  - a\n  - b\n",
		"# from file " + file + "\nhold-timeout: 7s\n",
		"# from file " + file + "\napisix-outbound-port: \"9999\"\n",
		"# from default\nadmin: 127.0.0.1:15000\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	// What is printed is a configuration file.
	printed := filepath.Join(t.TempDir(), "printed.yaml")
	if err := os.WriteFile(printed, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := command(t, nil, "run", "--config", printed, "--print-config"); code != exitOK {
		t.Errorf("the printed configuration is not accepted: %s", errs)
	}
}

func TestWrongConfigurationIsAUsageErrorThatNamesIt(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name    string
		environ []string
		args    []string
		want    string
	}{
		{"unknown flag", nil, []string{"run", "--nope"}, "--nope"},
		{"unknown command", nil, []string{"fly"}, "fly"},
		{"argument too many", nil, []string{"run", "now"}, "now"},
		{"unknown key in the file", nil, []string{"run", "--config", write("a.yaml", "lisen: x\n")}, `unknown key "lisen"`},
		{"key twice in the file", nil, []string{"run", "--config", write("b.yaml", "listen: x\nlisten: y\n")}, "b.yaml"},
		{"file that is no YAML", nil, []string{"run", "--config", write("c.yaml", "{")}, "c.yaml"},
		{"file that is not there", nil, []string{"run", "--config", filepath.Join(dir, "none")}, "none"},
		{"value of the wrong type in the file", nil, []string{"run", "--config", write("d.yaml", "hold-timeout: soon\n")}, "hold-timeout"},
		{"nested value in the file", nil, []string{"run", "--config", write("e.yaml", "listen: {a: b}\n")}, `"listen"`},
		{"value of the wrong type in the environment", []string{"MESHBRIDGE_HOLD_TIMEOUT=soon"}, []string{"run"}, "MESHBRIDGE_HOLD_TIMEOUT"},
		{"no source", nil, []string{"run"}, "--xds"},
		{"bad source", nil, []string{"run", "--xds", "http://istiod:15010"}, "--xds"},
		{"no identity", nil, []string{"run", "--xds", "grpc://127.0.0.1:15010"}, "node identity"},
		{"bad identity", nil, []string{"run", "--xds", "file:.", "--node-id", "sidecar~1~2"}, "--node-id"},
		{"bad metadata", nil, []string{"run", "--xds", "file:.", "--node-metadata", "{"}, "--node-metadata"},
		{"bad profile", nil, []string{"run", "--xds", "file:.", "--profile", "moon"}, "moon"},
		{"bad APISIX version", nil, []string{"run", "--xds", "file:.", "--apisix-version", "new"}, "--apisix-version"},
		{
			"bad life of certificates",
			[]string{"SECRET_TTL=long"},
			[]string{"run", "--profile", "mesh", "--xds", "grpcs://127.0.0.1:15012", "--node-id", "sidecar~10.0.0.1~a.b~c"},
			"SECRET_TTL",
		},
		{"bad log level", nil, []string{"run", "--xds", "file:.", "--log-level", "loud"}, "--log-level"},
		{"certificate without key", nil, []string{"run", "--xds", "file:.", "--listen-cert", "x"}, "--listen-key"},
		{"bad revision base", nil, []string{"etcd", "--revision-base", "2"}, "--revision-base"},
		{"bad output", nil, []string{"translate", "-f", ".", "-o", "xml"}, "--output"},
		{"nothing to translate", nil, []string{"translate"}, "--file"},
		{"bad writer of access logs", nil, []string{"run", "--xds", "file:.", "--node-id", "sidecar~10.0.0.1~a.b~c", "--access-log-files", "envoy"}, "--access-log-files"},
		{
			"a writer of access logs that is off", nil,
			[]string{"run", "--xds", "file:.", "--node-id", "sidecar~10.0.0.1~a.b~c", "--access-log-files", "bridge", "--access-logs", "off"},
			"--access-logs",
		},
		{"bad header", nil, []string{"explain", "http://x/", "-H", "x"}, "--header"},
		{"bad direction", nil, []string{"explain", "http://x/", "--direction", "up"}, "--direction"},
	} {
		code, _, errs := command(t, c.environ, c.args...)
		if code != exitUsage {
			t.Errorf("%s: exit code %d, want %d: %s", c.name, code, exitUsage, errs)
		}
		if !strings.Contains(errs, c.want) {
			t.Errorf("%s: stderr %q does not name %q", c.name, errs, c.want)
		}
	}
}
