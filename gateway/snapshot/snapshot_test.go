package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/testing/protocmp"

	"meshbridge/gateway/auth"
	"meshbridge/store"
)

// example is a store with a bit of everything, and the rest of a snapshot.
func example(t *testing.T) (*store.Store, *Contents) {
	t.Helper()
	s, err := store.New(store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, _, err := s.Grant(-9, 100); err != nil {
		t.Fatal(err)
	}
	for _, op := range []store.PutOp{
		{Key: []byte("a"), Value: []byte("1")},
		{Key: []byte("b"), Value: []byte("1")},
		{Key: []byte("a"), Value: []byte("2"), Lease: -9},
		{Key: []byte{0xff, 0}, Value: []byte{}},
	} {
		if _, err := s.Put(op); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Delete(store.DeleteOp{Key: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(3); err != nil {
		t.Fatal(err)
	}
	return s, &Contents{
		Store: s.Export(),
		Auth: auth.State{
			Enabled: true, Revision: 7,
			Users: []*authpb.User{{Name: []byte("root"), Password: []byte("$2a$"), Roles: []string{"root"}, Options: &authpb.UserAddOptions{}}},
			Roles: []*authpb.Role{{Name: []byte("root")}, {Name: []byte("web"), KeyPermission: []*authpb.Permission{
				{PermType: authpb.READWRITE, Key: []byte("a"), RangeEnd: []byte("z")},
			}}},
		},
		Alarms: []*pb.AlarmMember{{MemberID: 1 << 63, Alarm: pb.AlarmType_NOSPACE}},
		Members: []*pb.Member{{
			ID: 1 << 63, Name: "default", PeerURLs: []string{"http://127.0.0.1:2380"}, ClientURLs: []string{"http://127.0.0.1:2379"},
		}},
		ClusterVersion: "3.6.0", StorageVersion: "3.6.0", Term: 2,
	}
}

func written(t *testing.T, c *Contents) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot.db")
	if err := Write(t.Context(), path, c); err != nil {
		t.Fatal(err)
	}
	return path
}

func allChanges(t *testing.T, s store.State) []store.Change {
	t.Helper()
	var all []store.Change
	for c, err := range s.Changes {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// addChecksum does what etcdctl does with the end of a snapshot's stream.
func addChecksum(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if err := os.WriteFile(path, append(data, sum[:]...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	_, want := example(t)
	path := written(t, want)
	for _, with := range []string{"no checksum", "a checksum"} {
		t.Run("with "+with, func(t *testing.T) {
			if with == "a checksum" {
				addChecksum(t, path)
			}
			err := Read(path, func(got *Contents) error {
				options := cmp.Options{protocmp.Transform(), cmpopts.IgnoreFields(store.State{}, "Changes"), cmpopts.EquateEmpty()}
				if diff := cmp.Diff(want, got, options); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(allChanges(t, want.Store), allChanges(t, got.Store), cmpopts.EquateEmpty()); diff != "" {
					t.Error(diff)
				}
				for range got.Store.Changes {
					break
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A store of many transactions' size comes back whole, and the file has no unused end.
func TestLargeSnapshot(t *testing.T) {
	s, err := store.New(store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 64<<10)
	for i := range 200 {
		if _, err := s.Put(store.PutOp{Key: []byte{byte(i)}, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	path := written(t, &Contents{Store: s.Export()})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if size, content := info.Size(), int64(200*len(value)); size < content || size > content*12/10 {
		t.Errorf("%d bytes for %d of values", size, content)
	}
	err = Read(path, func(c *Contents) error {
		r, err := store.Restore(store.Config{}, c.Store)
		if err != nil {
			return err
		}
		defer r.Close()
		if got, want := r.Stats(), s.Stats(); got.Keys != want.Keys || got.Bytes != want.Bytes || got.Revision != want.Revision {
			t.Errorf("%+v, want %+v", got, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWriteLeavesNothingAfterAnError(t *testing.T) {
	_, c := example(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "snapshot.db")
	if err := Write(cancelled, path, c); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	unreadable := *c
	broken := errors.New("broken")
	unreadable.Store.Changes = func(yield func(store.Change, error) bool) {
		for _, change := range allChanges(t, c.Store) {
			yield(change, nil)
		}
		yield(store.Change{}, broken)
	}
	if err := Write(t.Context(), path, &unreadable); !errors.Is(err, broken) {
		t.Errorf("unreadable: %v", err)
	}
	nameless := *c
	nameless.Auth.Roles = []*authpb.Role{{}}
	if err := Write(t.Context(), path, &nameless); err == nil {
		t.Error("a role without a name can be stored")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file: %v", err)
	}
	if err := Write(t.Context(), filepath.Join(t.TempDir(), "absent", "snapshot.db"), c); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// load reads a file to its end.
func load(path string) error {
	return Read(path, func(c *Contents) error {
		s, err := store.Restore(store.Config{}, c.Store)
		if err == nil {
			s.Close()
		}
		return err
	})
}

func TestReadSaysWhatIsWrong(t *testing.T) {
	_, c := example(t)
	good, err := os.ReadFile(written(t, c))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(good)
	summed := slices.Concat(good, sum[:])
	flipped := slices.Clone(summed)
	flipped[len(flipped)/2] ^= 1
	for name, test := range map[string]struct {
		data []byte
		want error
	}{
		"a bit flipped":           {flipped, ErrChecksum},
		"the end missing":         {summed[:len(summed)-4096], ErrChecksum},
		"no checksum, no end":     {good[:len(good)-4096], ErrTruncated},
		"two pages":               {good[:8192], ErrTruncated},
		"the end of the checksum": {summed[:len(summed)-1], nil},
		"empty":                   {nil, ErrForeign},
		"a text":                  {slices.Repeat([]byte("etcd "), 4096), ErrForeign},
	} {
		path := filepath.Join(t.TempDir(), "snapshot.db")
		if err := os.WriteFile(path, test.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := load(path); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if err := load(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := load(t.TempDir()); err == nil {
		t.Error("a directory is read")
	}
}

// Whatever a damaged database leads to, it is an error and not a crash.
func TestDamagedDatabase(t *testing.T) {
	_, c := example(t)
	for name, damage := range map[string]func(tx *bbolt.Tx) error{
		"no key bucket":    func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(keyBucket)) },
		"revision":         putIn(keyBucket, "x", "y"),
		"long revision":    putIn(keyBucket, "\xff\xff\xff\xff\xff\xff\xff\xff-12345678", "y"),
		"change":           putIn(keyBucket, string(appendRevision(nil, 99, 0)), "y"),
		"compact revision": putIn(metaBucket, finishedCompactKey, "y"),
		"term":             putIn(metaBucket, termKey, "y"),
		"auth revision":    putIn(authBucket, authRevisionKey, "y"),
		"user":             putIn(authUsersBucket, "u", "y"),
		"role":             putIn(authRolesBucket, "r", "y"),
		"alarm":            putIn(alarmBucket, "y", ""),
		"member":           putIn(membersBucket, "1", "y"),
		"lease tag":        putIn(leaseBucket, "12345678", "\xff"),
		"lease kind":       putIn(leaseBucket, "12345678", "\x0a\x00"),
		"lease number":     putIn(leaseBucket, "12345678", "\x08\xff"),
	} {
		path := written(t, c)
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(damage), db.Close()); err != nil {
			t.Fatal(err)
		}
		err = load(path)
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
	path := written(t, c)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for page := 2 * os.Getpagesize(); page < len(data); page += os.Getpagesize() {
		for i := 8; i < 48; i++ {
			data[page+i] = 0xff
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := load(path); !errors.Is(err, ErrDamaged) {
		t.Errorf("pages overwritten: %v", err)
	}
}

func putIn(bucket, key, value string) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) }
}

// etcdutl snapshot restore --bump-revision puts a record without a value at the revision that it wants and
// schedules a compaction there.
func TestRevisionBumpedByEtcdutl(t *testing.T) {
	_, c := example(t)
	path := written(t, c)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	at := string(appendRevision(nil, 1006, 0))
	err = db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(putIn(keyBucket, at, "")(tx), putIn(metaBucket, scheduledCompactKey, at)(tx))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	err = Read(path, func(c *Contents) error {
		s, err := store.Restore(store.Config{}, c.Store)
		if err != nil {
			return err
		}
		defer s.Close()
		if stats := s.Stats(); stats.Revision != 1006 || stats.CompactRevision != 1006 || stats.Keys != 2 {
			t.Errorf("%+v", stats)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A running etcd has its database locked.
func TestDatabaseInUse(t *testing.T) {
	_, c := example(t)
	path := written(t, c)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := load(path); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
}

func TestErrorsOfTheUserPassThrough(t *testing.T) {
	_, c := example(t)
	mine := errors.New("mine")
	if err := Read(written(t, c), func(*Contents) error { return mine }); !errors.Is(err, mine) {
		t.Error(err)
	}
}
