package cli

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meshbridge/gateway/auth"
)

func passwordFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRootPasswordFileTurnsAuthenticationOn(t *testing.T) {
	for name, test := range map[string]struct{ content, password string }{
		"line":              {"secret\n", "secret"},
		"line from Windows": {"secret\r\n", "secret"},
		"no line end":       {"secret", "secret"},
		"spaces":            {" se cret \n", " se cret "},
	} {
		o := authOptions{bcryptCost: 4, rootPasswordFile: passwordFile(t, test.content)}
		a, err := o.authority(t.Context(), false, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if !a.Enabled() || a.Fixed() {
			t.Errorf("%s: enabled %t, fixed %t", name, a.Enabled(), a.Fixed())
		}
		if _, err := a.Authenticate(t.Context(), "root", test.password); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := a.Authenticate(t.Context(), "root", "other"); !errors.Is(err, auth.ErrFailed) {
			t.Errorf("%s: another password: %v", name, err)
		}
	}
}

// In a bridge without users nobody can make some and lock APISIX out.
func TestUsersOfABridgeAreFixedWithoutRoot(t *testing.T) {
	o := authOptions{bcryptCost: 4}
	for _, open := range []bool{true, false} {
		a, err := o.authority(t.Context(), open, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if a.Enabled() || a.Fixed() == open {
			t.Errorf("open to clients %t: enabled %t, fixed %t", open, a.Enabled(), a.Fixed())
		}
	}
}

func TestWrongAuthenticationFlagsAreUsageErrors(t *testing.T) {
	for _, name := range []string{"etcd", "run"} {
		for want, args := range map[string][]string{
			"simple or jwt":    {"--auth-token", "basic"},
			"sign-method":      {"--auth-token", "jwt"},
			"4 to 31":          {"--bcrypt-cost", "3"},
			"no such file":     {"--root-password-file", filepath.Join(t.TempDir(), "absent")},
			"no password":      {"--root-password-file", passwordFile(t, "\n")},
			"exceeds 72 bytes": {"--bcrypt-cost", "4", "--root-password-file", passwordFile(t, strings.Repeat("x", 73))},
		} {
			args := append([]string{name, "--listen", "127.0.0.1:0"}, args...)
			if name == "run" {
				args = append(args, "--xds", "file:"+t.TempDir(), "--node-id", "sidecar~10.0.0.1~a.b~b.svc.cluster.local")
			}
			code, _, stderr := command(t, nil, args...)
			if code != exitUsage || !strings.Contains(stderr, want) {
				t.Errorf("%q: exit code %d, %q, want %q", args, code, stderr, want)
			}
		}
	}
}
