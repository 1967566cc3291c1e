package apisixprocess

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestAReadOnlyHomeIsCopied(t *testing.T) {
	home, work := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		"conf/config.yaml": "old", "conf/cert/ssl.key": "key", "apisix/cli/apisix.lua": "lua", "logs/error.log": "noise", "proxy_temp/x": "body",
	} {
		full := filepath.Join(home, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := writableHome(home, work); err != nil || got != home {
		t.Errorf("a home that can be written is %q (%v)", got, err)
	}
	readOnly(t, filepath.Join(home, "conf"))
	if _, err := writableHome(home, ""); err == nil || !strings.Contains(err.Error(), "--apisix-work-dir") {
		t.Errorf("without a work directory: %v", err)
	}
	for range 2 { // as after a restart
		got, err := writableHome(home, work)
		if err != nil || got != filepath.Join(work, "apisix") {
			t.Fatalf("the home is %q (%v)", got, err)
		}
		for path, want := range map[string]string{"conf/config.yaml": "old", "conf/cert/ssl.key": "key", "apisix/cli/apisix.lua": "lua"} {
			if data, err := os.ReadFile(filepath.Join(got, path)); err != nil || string(data) != want {
				t.Errorf("%s is %q (%v)", path, data, err)
			}
		}
		if entries, err := os.ReadDir(filepath.Join(got, "logs")); err != nil || len(entries) != 0 {
			t.Errorf("logs has %v (%v)", entries, err)
		}
		if err := os.WriteFile(filepath.Join(got, "conf", "config.yaml"), []byte("new"), 0o600); err != nil {
			t.Error(err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(home, "conf/config.yaml")); err != nil || string(data) != "old" {
		t.Errorf("the home itself has %q (%v)", data, err)
	}
}

// readOnly keeps everybody, root included, from writing into a directory.
func readOnly(t *testing.T, directory string) {
	t.Helper()
	if os.Getuid() != 0 {
		if err := os.Chmod(directory, 0o500); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(directory, 0o700) })
		return
	}
	for _, args := range [][]string{{"--bind", directory, directory}, {"-o", "remount,ro,bind", directory}} {
		if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
			t.Skipf("mount: %v: %s", err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("umount", directory).Run() })
}
