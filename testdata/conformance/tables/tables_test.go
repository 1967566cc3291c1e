// Package tables runs Istio's own tables of cases and fixtures, which are part of its module and are not
// copied here, and compares what comes out with the main module's model of Envoy, with the translation, and
// with what capture chooses.
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

// TestIstiosTablesHold compiles Istio's test files with another import, runs them, and compares with
// what Istio's simulation says about each case, and about calls that are generated. Testdata has tables
// that are run with Istio's.
func TestIstiosTablesHold(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(istioModule(t), "pilot/pkg/networking/core/*_simulation_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	ours, err := filepath.Glob("testdata/*_simulation_test.go")
	if err != nil || len(ours) == 0 {
		t.Fatalf("no tables of ours: %v", err)
	}
	sources := map[string][]byte{}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Replace(source, []byte(`"istio.io/istio/pilot/pkg/simulation"`), []byte(`"meshbridge/testdata/conformance/simulation"`), 1)
		if bytes.Equal(changed, source) {
			t.Fatalf("%s does not import the simulation", file)
		}
		sources[filepath.Base(file)] = changed
	}
	for _, file := range ours {
		if sources[filepath.Base(file)], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	binary := compile(t, "core", sources)
	recordings := t.TempDir()
	run(t, filepath.Dir(files[0]), []string{"SIMULATIONS=" + recordings}, binary)
	t.Log(compareRecordings(t, "./translate", "TestSimulations", recordings))
	t.Log(compareRecordings(t, "./capture", "TestSimulations", recordings))
}

// compile makes a test binary of files that exist in an overlay only, so that neither module is
// written to.
func compile(t *testing.T, pkg string, sources map[string][]byte) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, source := range sources {
		// The name is a trace of where a case is from.
		copied := filepath.Join(dir, name)
		if err := os.WriteFile(copied, source, 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(here, pkg, name)] = copied
	}
	raw, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	file, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, pkg+".test")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, here, nil, "go", "test", "-c", "-vet=off", "-overlay", file, "-o", binary, "./"+pkg)
	return binary
}

// compareRecordings runs a test of the main module with recordings, and returns what it prints.
func compareRecordings(t *testing.T, pkg, test, recordings string) string {
	t.Helper()
	return run(t, "../../..", nil, "go", "test", "-count=1", "-v", "-run", "^"+test+"$", pkg, "-args", "-recordings", recordings)
}

// run runs a command and returns its output.
func run(t *testing.T, dir string, env []string, name string, arguments ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, arguments...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	output, err := cmd.CombinedOutput()
	if err != nil {
		if at := bytes.Index(output, []byte("--- FAIL")); at >= 0 {
			output = output[at:] // what comes before is Istio's log
		}
		const shown = 20000
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arguments, " "), err, output[:min(len(output), shown)])
	}
	return string(output)
}

func istioModule(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(run(t, ".", nil, "go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio"))
}
