// Package tables runs Istio's own tables of cases, which are part of its module and are not copied
// here, and compares what Istio's simulation says about them with the main module's model of Envoy.
package tables

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestIstiosTablesHold compiles Istio's test files with another import, which an overlay makes without
// writing to either module, and runs them.
func TestIstiosTablesHold(t *testing.T) {
	dir := istioModule(t)
	files, err := filepath.Glob(filepath.Join(dir, "pilot/pkg/networking/core/*_simulation_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tables in %s: %v", dir, err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Replace(source, []byte(`"istio.io/istio/pilot/pkg/simulation"`), []byte(`"meshbridge/testdata/conformance/simulation"`), 1)
		if bytes.Equal(changed, source) {
			t.Fatalf("%s does not import the simulation", file)
		}
		// A trace of where a case is from.
		copied := filepath.Join(t.TempDir(), filepath.Base(file))
		if err := os.WriteFile(copied, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(here, "core", filepath.Base(file))] = copied
	}
	raw, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	overlayFile, recordings := filepath.Join(t.TempDir(), "overlay.json"), t.TempDir()
	if err := os.WriteFile(overlayFile, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "core.test")
	run(t, here, nil, "go", "test", "-c", "-vet=off", "-overlay", overlayFile, "-o", binary, "./core")
	run(t, filepath.Dir(files[0]), []string{"SIMULATIONS=" + recordings}, binary)
	t.Log(run(t, filepath.Join(here, "../../.."), nil,
		"go", "test", "-count=1", "-v", "-run", "TestSimulations", "./translate", "-args", "-simulations", recordings))
}

// run runs a command and returns its output.
func run(t *testing.T, dir string, env []string, name string, arguments ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, arguments...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	output, err := cmd.CombinedOutput()
	if err != nil {
		const shown = 20000
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arguments, " "), err, output[:min(len(output), shown)])
	}
	return string(output)
}

func istioModule(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(run(t, ".", nil, "go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio"))
}
