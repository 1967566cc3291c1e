//go:build linux

package iptables

import (
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshbridge/capture/netnstest"
)

// The validation is made as the proxy's user, as Istio's CNI has it.
func TestRedirectionIsValidated(t *testing.T) {
	if os.Getenv(validateVariable) != "" {
		timeout, err := time.ParseDuration(os.Getenv(validateVariable))
		if err != nil {
			t.Fatal(err)
		}
		if err := Validate(t.Context(), pod(), 15002, timeout); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !netnstest.Run(t, "iptables", "ip6tables") {
		return
	}
	client := clientForAll(t)
	validate := func(timeout string) (string, error) {
		cmd := exec.CommandContext(t.Context(), client, "-test.run", "^"+t.Name()+"$")
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), validateVariable+"="+timeout)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1337, Gid: 1337}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := validate("300ms"); err == nil || !strings.Contains(out, "did not arrive") {
		t.Errorf("without rules: %v\n%s", err, out)
	}
	tool, err := Detect(t.Context(), "", false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v4, _ := Render(pod())
	if err := tool.Apply(t.Context(), v4, nil); err != nil {
		t.Fatal(err)
	}
	if out, err := validate("20s"); err != nil {
		t.Errorf("with rules: %v\n%s", err, out)
	}
}

// validateVariable is the timeout of the validation, in the process that makes it.
const validateVariable = "MESHBRIDGE_TEST_VALIDATE"
