package snapshot

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"meshbridge/store"
)

const (
	// batchBytes bounds what one transaction of the database keeps in memory.
	batchBytes = 4 << 20
	// fillPercent suits keys that only ever grow.
	fillPercent = 0.9
)

// Write makes a snapshot file at path, where there must be none yet. It has no checksum, which is for
// whoever sends the file to compute on the way. The memory it takes does not depend on the size of c.
// After an error, which may be that of ctx, the file is gone.
func Write(ctx context.Context, path string, c *Contents) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("snapshot %s: %w", path, err), os.Remove(path))
		}
	}()
	size, err := writeDatabase(ctx, path, c)
	if err != nil {
		return err
	}
	return os.Truncate(path, size) // the database reserves space that it does not use
}

// writeDatabase returns the size of what belongs to the database.
func writeDatabase(ctx context.Context, path string, c *Contents) (size int64, err error) {
	// A file that is not whole is not used, so nothing has to be on the disk before the end.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		NoSync: true, NoGrowSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Update(func(tx *bbolt.Tx) error { return c.writeAllButKeys(tx) }); err != nil {
		return 0, err
	}
	if err := writeKeys(ctx, db, c); err != nil {
		return 0, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	return size, err
}

// writeKeys writes the bucket key in transactions of about batchBytes.
func writeKeys(ctx context.Context, db *bbolt.DB, c *Contents) error {
	w := &keyWriter{db: db}
	for change, err := range c.Store.Changes {
		err = errors.Join(err, ctx.Err())
		if err == nil {
			err = w.put(&change)
		}
		if err != nil {
			return errors.Join(err, w.rollback())
		}
	}
	return w.commit()
}

// keyWriter has a transaction open while there is something to commit.
type keyWriter struct {
	db     *bbolt.DB
	tx     *bbolt.Tx
	bucket *bbolt.Bucket
	size   int // of what tx has been given
}

func (w *keyWriter) put(c *store.Change) error {
	if w.tx == nil {
		var err error
		if w.tx, err = w.db.Begin(true); err != nil {
			return err
		}
		w.bucket, w.size = w.tx.Bucket([]byte(keyBucket)), 0
		w.bucket.FillPercent = fillPercent
	}
	// The database keeps the value, and copies the key.
	key, value, err := appendChange(make([]byte, 0, revisionBytes+1), nil, c)
	if err != nil {
		return err
	}
	if err := w.bucket.Put(key, value); err != nil {
		return fmt.Errorf("revision %d: %w", c.Revision, err)
	}
	if w.size += len(key) + len(value); w.size >= batchBytes {
		return w.commit()
	}
	return nil
}

func (w *keyWriter) commit() error {
	if w.tx == nil {
		return nil
	}
	tx := w.tx
	w.tx = nil
	return tx.Commit()
}

func (w *keyWriter) rollback() error {
	if w.tx == nil {
		return nil
	}
	return w.tx.Rollback()
}

// writeAllButKeys makes every bucket and fills all but that of the keys.
func (c *Contents) writeAllButKeys(tx *bbolt.Tx) error {
	b := &bucketWriter{tx: tx}
	b.open(keyBucket)

	b.open(leaseBucket)
	for _, l := range c.Store.Leases {
		b.put(string(be64(uint64(l.ID))), appendLease(nil, l))
	}

	b.open(authBucket)
	b.put(authRevisionKey, be64(c.Auth.Revision))
	if c.Auth.Enabled {
		b.put(authEnabledKey, []byte{1})
	} else {
		b.put(authEnabledKey, []byte{0})
	}
	b.open(authUsersBucket)
	for _, u := range c.Auth.Users {
		b.putMessage(string(u.GetName()), u)
	}
	b.open(authRolesBucket)
	for _, r := range c.Auth.Roles {
		b.putMessage(string(r.GetName()), r)
	}

	b.open(alarmBucket)
	for _, a := range c.Alarms {
		b.put(string(b.marshal(a)), nil)
	}

	b.open(metaBucket)
	b.put(consistentIndexKey, be64(uint64(max(c.Store.Revision, 1))))
	b.put(termKey, be64(c.Term))
	b.put(storageVersionKey, []byte(c.StorageVersion))
	if c.Store.CompactRevision > 0 {
		at := appendRevision(nil, c.Store.CompactRevision, 0)
		b.put(scheduledCompactKey, at)
		b.put(finishedCompactKey, at)
	}
	state := confState{Voters: []uint64{}}
	for _, m := range c.Members {
		state.Voters = append(state.Voters, m.GetID())
	}
	b.putJSON(confStateKey, state)

	b.open(clusterBucket)
	b.put(clusterVersionKey, []byte(c.ClusterVersion))
	b.open(membersRemovedBucket)
	b.open(membersBucket)
	for _, m := range c.Members {
		b.putJSON(strconv.FormatUint(m.GetID(), 16), member{
			ID: m.GetID(), PeerURLs: append([]string{}, m.GetPeerURLs()...), IsLearner: m.GetIsLearner(), Name: m.GetName(), ClientURLs: m.GetClientURLs(),
		})
	}
	return b.err
}

// bucketWriter fills one bucket after the other and remembers the first error.
type bucketWriter struct {
	tx     *bbolt.Tx
	name   string
	bucket *bbolt.Bucket
	err    error
}

func (b *bucketWriter) open(name string) {
	bucket, err := b.tx.CreateBucket([]byte(name))
	b.name, b.bucket = name, bucket
	b.keep(err)
}

func (b *bucketWriter) put(key string, value []byte) {
	if b.err == nil {
		b.keep(b.bucket.Put([]byte(key), value))
	}
}

func (b *bucketWriter) putMessage(key string, m proto.Message) { b.put(key, b.marshal(m)) }

func (b *bucketWriter) putJSON(key string, value any) {
	data, err := json.Marshal(value)
	b.keep(err)
	b.put(key, data)
}

func (b *bucketWriter) marshal(m proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	b.keep(err)
	return data
}

func (b *bucketWriter) keep(err error) {
	if b.err == nil && err != nil {
		b.err = fmt.Errorf("bucket %s: %w", b.name, err)
	}
}

func be64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
