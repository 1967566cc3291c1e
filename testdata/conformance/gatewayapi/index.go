package gatewayapi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Index says what was recorded.
type Index struct {
	Fixtures []Fixture `json:"fixtures"`
}

// Fixture is one of Istio's.
type Fixture struct {
	Name string `json:"name"`
	// Recorded are the directories of its proxies.
	Recorded []string  `json:"recorded"`
	Skipped  []Skipped `json:"skipped"`
	// Converted is how many objects Istio makes of it.
	Converted int `json:"converted"`
}

// Skipped is a proxy that is not recorded.
type Skipped struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

func (i Index) write(t *testing.T, dir string) {
	t.Helper()
	writeJSON(t, filepath.Join(dir, "index.json"), i)
}

func writeJSON(t *testing.T, path string, value any) {
	t.Helper()
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
