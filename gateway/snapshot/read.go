package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	boltErrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"meshbridge/store"
)

// lockTimeout is how long to wait for a database that a running etcd has open.
const lockTimeout = time.Second

// Errors.
var (
	ErrChecksum  = errors.New("the checksum does not match: the file is damaged")
	ErrTruncated = errors.New("the file is truncated")
	ErrDamaged   = errors.New("the file is damaged")
	ErrForeign   = errors.New("the file is not an etcd snapshot")
	ErrInUse     = errors.New("the file is open in another process, such as a running etcd")
)

// Read reads the snapshot file at path, of this server or of an etcd, and passes it on while the file is
// open: Contents.Store.Changes reads from it. A database copied from the directory of a stopped etcd is
// read too; it has no checksum, and lacks what is in the log only.
//
// Errors, beside those of use and of the file system, are ErrChecksum, ErrTruncated, ErrDamaged,
// ErrForeign and ErrInUse.
func Read(path string, use func(*Contents) error) error {
	if err := verify(path); err != nil {
		return fmt.Errorf("snapshot %s: %w", path, err)
	}
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	switch {
	case errors.Is(err, boltErrors.ErrTimeout):
		return fmt.Errorf("snapshot %s: %w", path, ErrInUse)
	case err != nil:
		return fmt.Errorf("snapshot %s: %w: %w", path, ErrForeign, err)
	}
	// A database that is damaged leads its reader to pages that do not exist.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	err = db.View(func(tx *bbolt.Tx) error {
		c := &Contents{}
		if err := guard(func() error { return c.read(tx, path) }); err != nil {
			return fmt.Errorf("snapshot %s: %w", path, err)
		}
		return use(c)
	})
	return errors.Join(err, db.Close())
}

// verify compares the checksum, if there is one.
func verify(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < 2*sectorBytes {
		return fmt.Errorf("%w: it has %d bytes", ErrForeign, info.Size())
	}
	if info.Size()%sectorBytes != sha256.Size {
		return nil
	}
	hash := sha256.New()
	if _, err := io.CopyN(hash, f, info.Size()-sha256.Size); err != nil {
		return err
	}
	want, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if !bytes.Equal(hash.Sum(nil), want) {
		return ErrChecksum
	}
	return nil
}

// guard turns a panic of the database into an error.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return f()
}

// read reads everything but the keys.
func (c *Contents) read(tx *bbolt.Tx, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() < tx.Size() {
		return fmt.Errorf("%w: it has %d of at least %d bytes", ErrTruncated, info.Size(), tx.Size())
	}
	keys := tx.Bucket([]byte(keyBucket))
	if keys == nil || tx.Bucket([]byte(metaBucket)) == nil {
		return fmt.Errorf("%w: a bucket %q or %q is missing", ErrForeign, keyBucket, metaBucket)
	}
	r := &bucketReader{tx: tx}
	c.readAuth(r)
	c.readServer(r)
	c.Store.CompactRevision = -1
	for _, key := range []string{finishedCompactKey, scheduledCompactKey} {
		r.get(metaBucket, key, func(value []byte) error {
			// What was scheduled may not be finished; whoever takes the contents finishes it.
			revision, _, _, err := parseRevision(value)
			c.Store.CompactRevision = max(c.Store.CompactRevision, revision)
			return err
		})
	}
	r.each(leaseBucket, func(_, value []byte) error {
		l, err := parseLease(value)
		c.Store.Leases = append(c.Store.Leases, l)
		return err
	})
	if last, _ := keys.Cursor().Last(); last != nil {
		revision, _, _, err := parseRevision(last)
		r.keep(keyBucket, last, err)
		c.Store.Revision = revision
	}
	c.Store.Revision = max(c.Store.Revision, c.Store.CompactRevision, 1)
	c.Store.Changes = func(yield func(store.Change, error) bool) { readKeys(keys, yield) }
	return r.err
}

func (c *Contents) readAuth(r *bucketReader) {
	r.get(authBucket, authEnabledKey, func(value []byte) error {
		c.Auth.Enabled = len(value) == 1 && value[0] == 1
		return nil
	})
	r.get(authBucket, authRevisionKey, func(value []byte) (err error) {
		c.Auth.Revision, err = parse64(value)
		return err
	})
	r.each(authUsersBucket, func(_, value []byte) error {
		u := &authpb.User{}
		c.Auth.Users = append(c.Auth.Users, u)
		return proto.Unmarshal(value, u)
	})
	r.each(authRolesBucket, func(_, value []byte) error {
		role := &authpb.Role{}
		c.Auth.Roles = append(c.Auth.Roles, role)
		return proto.Unmarshal(value, role)
	})
}

// readServer reads what is about the server that the snapshot is of.
func (c *Contents) readServer(r *bucketReader) {
	r.each(alarmBucket, func(key, _ []byte) error {
		a := &pb.AlarmMember{}
		c.Alarms = append(c.Alarms, a)
		return proto.Unmarshal(key, a)
	})
	r.each(membersBucket, func(_, value []byte) error {
		var m member
		if err := json.Unmarshal(value, &m); err != nil {
			return err
		}
		c.Members = append(c.Members, &pb.Member{
			ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner,
		})
		return nil
	})
	r.get(metaBucket, termKey, func(value []byte) (err error) {
		c.Term, err = parse64(value)
		return err
	})
	r.get(metaBucket, storageVersionKey, func(value []byte) error {
		c.StorageVersion = string(value)
		return nil
	})
	r.get(clusterBucket, clusterVersionKey, func(value []byte) error {
		c.ClusterVersion = string(value)
		return nil
	})
}

// readKeys yields the bucket key.
func readKeys(keys *bbolt.Bucket, yield func(store.Change, error) bool) {
	var (
		change  store.Change
		cursor  = keys.Cursor()
		advance = cursor.First
		more    bool
	)
	for {
		err := guard(func() (err error) {
			key, value := advance()
			// etcdutl raises the revision by a record without a value, for which there is nothing
			// to restore.
			for key != nil && len(value) == 0 {
				key, value = cursor.Next()
			}
			if more = key != nil; !more {
				return nil
			}
			if change, err = parseChange(key, value); err != nil {
				return fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			return nil
		})
		if err != nil {
			yield(store.Change{}, err)
			return
		}
		if !more || !yield(change, nil) {
			return
		}
		advance = cursor.Next
	}
}

// bucketReader reads buckets, which may be missing, and remembers the first error.
type bucketReader struct {
	tx  *bbolt.Tx
	err error
}

// each passes on everything in a bucket. The slices are good until take returns.
func (r *bucketReader) each(bucket string, take func(key, value []byte) error) {
	b := r.tx.Bucket([]byte(bucket))
	if b == nil {
		return
	}
	cursor := b.Cursor()
	for key, value := cursor.First(); key != nil && r.err == nil; key, value = cursor.Next() {
		r.keep(bucket, key, take(key, value))
	}
}

// get passes on the value of a key if there is one.
func (r *bucketReader) get(bucket, key string, take func(value []byte) error) {
	b := r.tx.Bucket([]byte(bucket))
	if b == nil || r.err != nil {
		return
	}
	if value := b.Get([]byte(key)); value != nil {
		r.keep(bucket, []byte(key), take(value))
	}
}

func (r *bucketReader) keep(bucket string, key []byte, err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("%w: bucket %s, key %q: %w", ErrDamaged, bucket, key, err)
	}
}

func parse64(value []byte) (uint64, error) {
	if len(value) != 8 {
		return 0, fmt.Errorf("%d bytes where 8 are expected", len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}
