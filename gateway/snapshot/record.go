package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"meshbridge/store"
)

// appendRevision appends a key of the bucket key.
func appendRevision(b []byte, revision, sub int64) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(revision))
	b = append(b, '_')
	return binary.BigEndian.AppendUint64(b, uint64(sub))
}

// appendChange appends the key and the value that a change is stored as.
func appendChange(key, value []byte, c *store.Change) (k, v []byte, err error) {
	key = appendRevision(key, c.Revision, c.Sub)
	kv := &mvccpb.KeyValue{Key: c.KV.Key}
	if c.Delete {
		key = append(key, 't')
	} else {
		kv.Value, kv.Lease = c.KV.Value, c.KV.Lease
		kv.CreateRevision, kv.ModRevision, kv.Version = c.KV.CreateRevision, c.KV.ModRevision, c.KV.Version
	}
	// In order of the fields, because hashes are taken over the bytes.
	value, err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(value, kv)
	return key, value, err
}

// parseRevision parses a key of the bucket key.
func parseRevision(key []byte) (revision, sub int64, deleted bool, err error) {
	deleted = len(key) == revisionBytes+1 && key[revisionBytes] == 't'
	if len(key) != revisionBytes && !deleted || key[8] != '_' {
		return 0, 0, false, fmt.Errorf("%x is no revision", key)
	}
	return int64(binary.BigEndian.Uint64(key)), int64(binary.BigEndian.Uint64(key[9:])), deleted, nil
}

// parseChange parses a record of the bucket key. The result shares no memory with it.
func parseChange(key, value []byte) (store.Change, error) {
	revision, sub, deleted, err := parseRevision(key)
	if err != nil {
		return store.Change{}, err
	}
	var kv mvccpb.KeyValue
	if err := proto.Unmarshal(value, &kv); err != nil {
		return store.Change{}, fmt.Errorf("change %d of revision %d: %w", sub, revision, err)
	}
	change := store.Change{Revision: revision, Sub: sub, Delete: deleted, KV: &store.KeyValue{Key: kv.GetKey(), ModRevision: revision}}
	if !deleted {
		*change.KV = store.KeyValue{
			Key: kv.GetKey(), Value: kv.GetValue(), Lease: kv.GetLease(), Version: kv.GetVersion(),
			CreateRevision: kv.GetCreateRevision(), ModRevision: kv.GetModRevision(),
		}
	}
	return change, nil
}

// appendLease appends the value that a lease is stored as; its key is the id.
func appendLease(b []byte, l store.Lease) []byte {
	b = protowire.AppendVarint(protowire.AppendTag(b, leaseIDField, protowire.VarintType), uint64(l.ID))
	return protowire.AppendVarint(protowire.AppendTag(b, leaseTTLField, protowire.VarintType), uint64(l.TTL))
}

// parseLease parses a lease's value.
func parseLease(value []byte) (l store.Lease, err error) {
	for len(value) > 0 {
		number, kind, n := protowire.ConsumeTag(value)
		if n < 0 {
			return l, protowire.ParseError(n)
		}
		value = value[n:]
		if kind != protowire.VarintType {
			return l, errors.New("a field of a lease is no number")
		}
		v, n := protowire.ConsumeVarint(value)
		if n < 0 {
			return l, protowire.ParseError(n)
		}
		value = value[n:]
		switch number {
		case leaseIDField:
			l.ID = int64(v)
		case leaseTTLField:
			l.TTL = int64(v)
		default: // what remained at a change of leaders; a restored lease gets its full TTL
		}
	}
	return l, nil
}
