package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Manifests is a private copy of a directory of YAML that a test edits.
type Manifests struct {
	Dir string
}

// CopyManifests copies the manifests of a directory; without one it starts
// empty.
func CopyManifests(t testing.TB, from string) Manifests {
	t.Helper()
	m := Manifests{Dir: t.TempDir()}
	if from == "" {
		return m
	}
	files, err := filepath.Glob(filepath.Join(from, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no manifests in %s", from)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m.Write(t, filepath.Base(file), string(text))
	}
	return m
}

// Write puts a file in place at once, as a careful editor does.
func (m Manifests) Write(t testing.TB, name, text string) {
	t.Helper()
	scratch := filepath.Join(m.Dir, name+".new")
	if err := os.WriteFile(scratch, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(scratch, filepath.Join(m.Dir, name)); err != nil {
		t.Fatal(err)
	}
}

// Replace substitutes the only occurrence of a text in a file.
func (m Manifests) Replace(t testing.TB, name, old, replacement string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), old); n != 1 {
		t.Fatalf("%s: %q occurs %d times, want once", name, old, n)
	}
	m.Write(t, name, strings.Replace(string(text), old, replacement, 1))
}

// Remove deletes a file.
func (m Manifests) Remove(t testing.TB, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(m.Dir, name)); err != nil {
		t.Fatal(err)
	}
}
