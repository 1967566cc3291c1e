// Package netnstest runs tests in network namespaces of their own, which leave this host alone: those that set
// addresses, routes or iptables rules.
package netnstest

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// variable tells a test that it runs in a network namespace of its own.
const variable = "MESHBRIDGE_TEST_NAMESPACE"

// Run runs the test that calls it again, in a network namespace of its own. It is true in there, where the
// loopback interface is up, and false when that run is over. The test is skipped where namespaces or one of
// the programs are missing, and fails there when REQUIRE_NETNS is set.
func Run(t *testing.T, programs ...string) bool {
	t.Helper()
	if os.Getenv(variable) != "" {
		Configure(t, "ip link set lo up")
		return true
	}
	for _, program := range append(programs, "unshare", "ip") {
		if _, err := exec.LookPath(program); err != nil {
			lacks(t, err.Error())
		}
	}
	if err := exec.CommandContext(t.Context(), "unshare", "-n", "true").Run(); err != nil {
		lacks(t, "network namespaces (root): "+err.Error())
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "-n", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v") //nolint:gosec // this program
	cmd.Env = append(os.Environ(), variable+"=1")
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	if strings.Contains(string(output), "--- SKIP: "+t.Name()+" (") {
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

// Configure runs commands, whose arguments have no spaces. Cleanups may call it.
func Configure(t *testing.T, commands ...string) {
	t.Helper()
	for _, command := range commands {
		if output, err := run(context.WithoutCancel(t.Context()), command); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, output)
		}
	}
}

// TryConfigure runs a command that needs what a kernel may not have, and skips the test where it fails.
func TryConfigure(t *testing.T, command string) {
	t.Helper()
	if output, err := run(context.WithoutCancel(t.Context()), command); err != nil {
		t.Skipf("%s: %v\n%s", command, err, output)
	}
}

func run(ctx context.Context, command string) ([]byte, error) {
	args := strings.Fields(command)
	return exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput() //nolint:gosec // the test's own
}
