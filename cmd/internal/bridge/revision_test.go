package bridge

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var epoch = time.UnixMilli(1_790_000_000_000)

func TestRevisionsStartAtTheClockInMilliseconds(t *testing.T) {
	base, r, err := openRevisions("", epoch)
	if err != nil {
		t.Fatal(err)
	}
	if base != epoch.UnixMilli() {
		t.Errorf("base = %d, want %d", base, epoch.UnixMilli())
	}
	if err := r.reserve(base + 1); err != nil {
		t.Errorf("reserve without a state directory: %v", err)
	}
}

// A clock that was set back must not bring revisions back that APISIX has seen with other content.
func TestRevisionsNeverGoBackWithAStateDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	base, r, err := openRevisions(dir, epoch)
	if err != nil {
		t.Fatal(err)
	}
	used := base
	for used < base+3*revisionReserve {
		used += revisionReserve / 3
		if err := r.reserve(used); err != nil {
			t.Fatal(err)
		}
	}
	next, _, err := openRevisions(dir, epoch.Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if next <= used {
		t.Errorf("restart with the clock set back: base %d, but revisions up to %d were used", next, used)
	}
}

func TestDamagedRevisionCeilingIsAnError(t *testing.T) {
	for _, content := range []string{"", "{", `{"ceiling":0}`, `{"ceiling":"x"}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ceilingFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := openRevisions(dir, epoch)
		if err == nil || !strings.Contains(err.Error(), ceilingFile) {
			t.Errorf("content %q: error %v, want one that names the file", content, err)
		}
	}
}

// APISIX's JSON encoder writes 14 digits of a number.
func TestRevisionsBeyondWhatAPISIXCanRepresentAreRefused(t *testing.T) {
	if _, _, err := openRevisions("", time.UnixMilli(maxRevision)); err == nil {
		t.Error("no error for a clock beyond 10^14 ms")
	}
}
