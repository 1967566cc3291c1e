package bridge

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func discardedStateFile() *stateFile {
	return newStateFile("test", prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
}

var epoch = time.UnixMilli(1_790_000_000_000)

func TestRevisionsStartAtTheClockInMilliseconds(t *testing.T) {
	base, _, err := openRevisions("", epoch, discardedStateFile())
	if err != nil {
		t.Fatal(err)
	}
	if base != epoch.UnixMilli() {
		t.Errorf("base = %d, want %d", base, epoch.UnixMilli())
	}
}

// A clock that was set back must not bring revisions back that APISIX has seen with other content.
func TestRevisionsNeverGoBackWithAStateDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	base, r, err := openRevisions(dir, epoch, discardedStateFile())
	if err != nil {
		t.Fatal(err)
	}
	used := base
	for used < base+3*revisionReserve {
		used += revisionReserve / 3
		r.reserve(used)
	}
	next, _, err := openRevisions(dir, epoch.Add(-24*time.Hour), discardedStateFile())
	if err != nil {
		t.Fatal(err)
	}
	if next <= used {
		t.Errorf("restart with the clock set back: base %d, but revisions up to %d were used", next, used)
	}
}

// fillDisk makes the next attempt to replace the file in a directory fail as on a full disk.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skip("needs ", full)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(full, filepath.Join(dir, ceilingFile+".new")); err != nil {
		t.Fatal(err)
	}
}

// A bridge that did not start, or ended, for want of room on the disk would leave APISIX without routes.
func TestAFullDiskHoldsUpNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	fillDisk(t, dir)
	base, r, err := openRevisions(dir, epoch, discardedStateFile())
	if err != nil || base != epoch.UnixMilli() {
		t.Fatalf("the first start: base %d, %v", base, err)
	}
	if _, err := os.Stat(r.path); err == nil {
		t.Error("the file was written to a full disk")
	}
	r.tried = time.Now().Add(-retryCeiling)
	r.reserve(base + 1)
	used := base + revisionReserve
	fillDisk(t, dir)
	r.reserve(used) // in place
	for restart := range 3 {
		fillDisk(t, dir)
		next, _, err := openRevisions(dir, epoch.Add(-24*time.Hour), discardedStateFile())
		if err != nil {
			t.Fatalf("restart %d: %v", restart, err)
		}
		if next <= used {
			t.Errorf("restart %d with the clock set back: base %d, but revisions up to %d were used", restart, next, used)
		}
		used = next
	}
}

func TestAStateDirectoryThatIsNoneIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openRevisions(file, epoch, discardedStateFile()); err == nil {
		t.Error("no error for a state directory that is a file")
	}
}

// A process that is killed while it writes leaves a part of a file.
func TestKilledWritersLeaveNothingThatAddsUp(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ceilingFile+".new"), []byte(`{"ceil`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openRevisions(dir, epoch, discardedStateFile()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != ceilingFile {
		t.Errorf("the state directory holds %v, %v", entries, err)
	}
}

func TestDamagedRevisionCeilingIsAnError(t *testing.T) {
	for _, content := range []string{"", "{", `{"ceiling":0}`, `{"ceiling":"x"}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ceilingFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := openRevisions(dir, epoch, discardedStateFile())
		if err == nil || !strings.Contains(err.Error(), ceilingFile) {
			t.Errorf("content %q: error %v, want one that names the file", content, err)
		}
	}
}

// APISIX's JSON encoder writes 14 digits of a number.
func TestRevisionsBeyondWhatAPISIXCanRepresentAreRefused(t *testing.T) {
	if _, _, err := openRevisions("", time.UnixMilli(maxRevision), discardedStateFile()); err == nil {
		t.Error("no error for a clock beyond 10^14 ms")
	}
}
