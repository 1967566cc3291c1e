//go:build linux

package capture_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// namespaceVariable tells a test that it runs in a network namespace of its own.
const namespaceVariable = "MESHBRIDGE_TEST_NAMESPACE"

// inNamespace runs a test again in a network namespace of its own, which leaves this host alone. It is true
// in there, and skips where that, or a program, is missing, unless REQUIRE_NETNS says that it must run.
func inNamespace(t *testing.T, programs ...string) bool {
	t.Helper()
	if os.Getenv(namespaceVariable) != "" {
		configure(t, "ip link set lo up")
		return true
	}
	for _, program := range append(programs, "unshare", "ip") {
		if _, err := exec.LookPath(program); err != nil {
			lacks(t, err.Error())
		}
	}
	if err := exec.Command("unshare", "-n", "true").Run(); err != nil {
		lacks(t, "network namespaces (root): "+err.Error())
	}
	cmd := exec.Command("unshare", "-n", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), namespaceVariable+"=1")
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	if strings.Contains(string(output), "--- SKIP") {
		t.Skipf("skipped in its network namespace:\n%s", output)
	}
	return false
}

func lacks(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("REQUIRE_NETNS") != "" {
		t.Fatal("needs", what)
	}
	t.Skip("needs", what)
}

// configure runs commands.
func configure(t *testing.T, commands ...string) {
	t.Helper()
	for _, command := range commands {
		if output, err := run(command); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, output)
		}
	}
}

// tryConfigure runs a command that needs what a kernel may not have, and skips where it fails.
func tryConfigure(t *testing.T, command string) {
	t.Helper()
	if output, err := run(command); err != nil {
		t.Skipf("%s: %v\n%s", command, err, output)
	}
}

func run(command string) ([]byte, error) {
	args := strings.Fields(command)
	return exec.Command(args[0], args[1:]...).CombinedOutput()
}
