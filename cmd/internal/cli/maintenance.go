package cli

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"meshbridge/gateway"
	"meshbridge/gateway/auth"
	"meshbridge/gateway/snapshot"
	"meshbridge/store"
)

// maintenanceOptions say what a plain store begins with and how it is kept small. Names and defaults are
// etcd's where etcd has the flag.
type maintenanceOptions struct {
	restore, snapshotDir string
	quota                int64
	compaction           compactionOptions
}

func (o *maintenanceOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.restore, "restore", "",
		"snapshot `file`, of this server or of an etcd, to begin with instead of an empty store")
	f.StringVar(&o.snapshotDir, "snapshot-dir", "",
		"`directory` where snapshots are made before they are sent; the system's for temporary files if it is not set")
	f.Int64Var(&o.quota, "quota-backend-bytes", gateway.DefaultQuotaBytes,
		"size in `bytes` from which on clients cannot make the store grow; 0 is the default, less than 0 no limit")
	o.compaction.add(f)
}

// open makes the store and gives the authority the users of the snapshot. The result has what the options
// say about the gateway.
func (o *maintenanceOptions) open(sc store.Config, authority *auth.Authority) (gateway.Config, error) {
	gc := gateway.Config{Auth: authority, QuotaBytes: o.quota, SnapshotDir: o.snapshotDir}
	if o.restore == "" {
		st, err := store.New(sc)
		gc.Store = st
		return gc, err
	}
	err := snapshot.Read(o.restore, func(c *snapshot.Contents) (err error) {
		if len(c.Auth.Users) > 0 || len(c.Auth.Roles) > 0 {
			if len(authority.State().Users) > 0 {
				return errors.New("it has users of its own, which --root-password-file is no way to change")
			}
			if err := authority.Restore(c.Auth); err != nil {
				return err
			}
		}
		gc.Alarms = c.Alarms
		gc.Store, err = store.Restore(sc, c.Store)
		return err
	})
	if err != nil {
		return gc, fmt.Errorf("--restore: %w", err)
	}
	return gc, nil
}

// compactionOptions are etcd's way to bound the history; historyOptions are the other.
type compactionOptions struct{ mode, retention string }

// Values of --auto-compaction-mode.
const (
	compactPeriodic = "periodic"
	compactRevision = "revision"
)

const retentionFlag = "auto-compaction-retention"

func (o *compactionOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.mode, "auto-compaction-mode", compactPeriodic, "what --"+retentionFlag+" is: `periodic|revision`")
	f.StringVar(&o.retention, retentionFlag, "",
		"history to `keep`, instead of --keep-revisions and --keep-for: a duration, where a number is hours, or in mode revision a number of revisions; 0 keeps all")
}

// bound sets the bounds of the history, by whichever flags were given.
func (o *compactionOptions) bound(sc *store.Config, history *historyOptions, flags *pflag.FlagSet) error {
	if o.mode != compactPeriodic && o.mode != compactRevision {
		return fmt.Errorf("--auto-compaction-mode %q: want %s or %s", o.mode, compactPeriodic, compactRevision)
	}
	if o.retention == "" {
		sc.KeepRevisions, sc.KeepFor = history.revisions, history.keepFor()
		return nil
	}
	for _, other := range []string{"keep-revisions", "keep-for"} {
		if flags.Changed(other) {
			return fmt.Errorf("--%s and --%s both bound the history: give one of them", retentionFlag, other)
		}
	}
	number, err := strconv.ParseInt(o.retention, 10, 64)
	switch {
	case err == nil && number == 0:
	case o.mode == compactRevision:
		if err != nil || number < 0 {
			return fmt.Errorf("--%s %q: want a number of revisions, as --auto-compaction-mode is %s", retentionFlag, o.retention, o.mode)
		}
		sc.KeepRevisions = number
	default:
		age := time.Duration(number) * time.Hour
		if err != nil {
			age, err = time.ParseDuration(o.retention)
		}
		if err != nil || age < 0 || age/time.Hour < time.Duration(number) {
			return fmt.Errorf("--%s %q: want hours or a duration", retentionFlag, o.retention)
		}
		if age > 0 {
			sc.KeepRevisions, sc.KeepFor = 1, age // at least 1, so age alone decides
		}
	}
	return nil
}
