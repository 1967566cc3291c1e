package cli

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/api/v3/authpb"

	"meshbridge/gateway/auth"
	"meshbridge/gateway/snapshot"
	"meshbridge/store"
)

// Both ways to bound the history mean the same to the store.
func TestBoundsOfTheHistory(t *testing.T) {
	for args, want := range map[string]store.Config{
		"":                                 {KeepRevisions: 10_000, KeepFor: 5 * time.Minute},
		"--keep-revisions 7 --keep-for 2s": {KeepRevisions: 7, KeepFor: 2 * time.Second},
		"--keep-revisions 0":               {},
		"--auto-compaction-retention 0":    {},
		"--auto-compaction-retention 0s":   {},
		"--auto-compaction-retention 2":    {KeepRevisions: 1, KeepFor: 2 * time.Hour},
		"--auto-compaction-retention 90m":  {KeepRevisions: 1, KeepFor: 90 * time.Minute},
		"--auto-compaction-mode revision":  {KeepRevisions: 10_000, KeepFor: 5 * time.Minute},
		"--auto-compaction-mode revision --auto-compaction-retention 1000": {KeepRevisions: 1000},
		"--auto-compaction-mode revision --auto-compaction-retention 0":    {},
	} {
		got, err := boundsOf(t, args)
		if err != nil {
			t.Errorf("%s: %v", args, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", args, diff)
		}
	}
	for args, want := range map[string]string{
		"--auto-compaction-mode monthly":                                 `--auto-compaction-mode "monthly"`,
		"--auto-compaction-retention soon":                               "want hours or a duration",
		"--auto-compaction-retention -1h":                                "want hours or a duration",
		"--auto-compaction-retention 9999999999999":                      "want hours or a duration",
		"--auto-compaction-mode revision --auto-compaction-retention 5m": "want a number of revisions",
		"--auto-compaction-mode revision --auto-compaction-retention -5": "want a number of revisions",
		"--auto-compaction-retention 5m --keep-for 5m":                   "--auto-compaction-retention and --keep-for both",
		"--auto-compaction-retention 5 --keep-revisions 5":               "--auto-compaction-retention and --keep-revisions both",
	} {
		if _, err := boundsOf(t, args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}

func boundsOf(t *testing.T, args string) (sc store.Config, err error) {
	t.Helper()
	var history historyOptions
	var compaction compactionOptions
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	history.add(f)
	compaction.add(f)
	if err := f.Parse(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	return sc, compaction.bound(&sc, &history, f)
}

func TestRestoreRefusesWhatItCannotBeginWith(t *testing.T) {
	authority, err := auth.New(auth.Config{BcryptCost: 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.EnableWithRoot(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "saved.db")
	users := []*authpb.User{{Name: []byte("somebody")}}
	state := store.State{Changes: func(func(store.Change, error) bool) {}}
	if err := snapshot.Write(t.Context(), path, &snapshot.Contents{Store: state, Auth: auth.State{Users: users}}); err != nil {
		t.Fatal(err)
	}
	o := maintenanceOptions{restore: path}
	if _, err := o.open(store.Config{}, authority); err == nil || !strings.Contains(err.Error(), "--root-password-file") {
		t.Error(err)
	}
	code, _, stderr := command(t, nil, "etcd", "--listen", "127.0.0.1:0", "--restore", path+".absent")
	if code != exitError || !strings.Contains(stderr, "saved.db.absent") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	code, _, stderr = command(t, nil, "etcd", "--listen", "127.0.0.1:0", "--auto-compaction-mode", "x")
	if code != exitUsage {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}
