package etcd

import (
	"cmp"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// write is a request that may have changed something, and its answer.
type write struct {
	request, response proto.Message
}

func (w write) revision() int64 {
	return w.response.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().GetRevision()
}

// changes tells whether the write made a revision. A revocation does not say;
// it did if its revision is that of no other write, and not the first.
func (w write) changes() (changes, certain bool) {
	switch r := w.response.(type) {
	case *pb.PutResponse:
		return true, true
	case *pb.DeleteRangeResponse:
		return r.GetDeleted() > 0, true
	case *pb.TxnResponse:
		for _, op := range r.GetResponses() {
			if op.GetResponsePut() != nil || op.GetResponseDeleteRange().GetDeleted() > 0 {
				return true, true
			}
		}
		return false, true
	case *pb.LeaseRevokeResponse:
		return r.GetHeader().GetRevision() > 1, false
	default:
		return false, true
	}
}

// replay works out what the answers to all writes of a store say that happened.
// Transactions have operations of one branch without compares, about different
// keys. The revisions must be those from 2 on, each of one write.
func replay(writes []write) (*written, error) {
	made := map[int64]write{}
	for _, certain := range []bool{true, false} {
		for _, w := range writes {
			changes, sure := w.changes()
			if !changes || sure != certain {
				continue
			}
			if other, ok := made[w.revision()]; ok {
				if certain {
					return nil, fmt.Errorf("revision %d was made by %v and by %v", w.revision(), other.request, w.request)
				}
				continue
			}
			made[w.revision()] = w
		}
	}
	truth := &written{base: 1}
	for _, w := range writes {
		if c, ok := w.request.(*pb.CompactionRequest); ok {
			truth.compacted = append(truth.compacted, c.GetRevision())
		}
	}
	keys := keyspace{}
	for revision := int64(2); len(made) > 0; revision++ {
		w, ok := made[revision]
		if !ok {
			return nil, fmt.Errorf("revision %d was made by no write, and later ones were", revision)
		}
		delete(made, revision)
		truth.events = append(truth.events, keys.apply(w, revision))
	}
	return truth, nil
}

// keyspace is the keys that exist at a revision.
type keyspace map[string]*mvccpb.KeyValue

// apply makes the changes of a write and returns its events.
func (k keyspace) apply(w write, revision int64) (events []*mvccpb.Event) {
	switch r := w.request.(type) {
	case *pb.PutRequest:
		return []*mvccpb.Event{k.put(r, revision)}
	case *pb.DeleteRangeRequest:
		return k.remove(revision, func(kv *mvccpb.KeyValue) bool { return within(kv, r) })
	case *pb.LeaseRevokeRequest:
		return k.remove(revision, func(kv *mvccpb.KeyValue) bool { return kv.GetLease() == r.GetID() })
	case *pb.TxnRequest:
		for _, op := range r.GetSuccess() {
			if p := op.GetRequestPut(); p != nil {
				events = append(events, k.put(p, revision))
			} else if d := op.GetRequestDeleteRange(); d != nil {
				events = append(events, k.remove(revision, func(kv *mvccpb.KeyValue) bool { return within(kv, d) })...)
			}
		}
	}
	return events
}

func within(kv *mvccpb.KeyValue, r *pb.DeleteRangeRequest) bool {
	w := checkedWatch{request: &pb.WatchCreateRequest{Key: r.GetKey(), RangeEnd: r.GetRangeEnd()}}
	return w.wants(&mvccpb.Event{Kv: kv})
}

func (k keyspace) put(r *pb.PutRequest, revision int64) *mvccpb.Event {
	prev := k[string(r.GetKey())]
	kv := &mvccpb.KeyValue{
		Key: r.GetKey(), Value: r.GetValue(), Lease: r.GetLease(),
		CreateRevision: revision, ModRevision: revision, Version: 1,
	}
	if prev != nil {
		kv.CreateRevision, kv.Version = prev.GetCreateRevision(), prev.GetVersion()+1
	}
	k[string(r.GetKey())] = kv
	return &mvccpb.Event{Kv: kv, PrevKv: prev}
}

func (k keyspace) remove(revision int64, matches func(*mvccpb.KeyValue) bool) (events []*mvccpb.Event) {
	for key, kv := range k {
		if matches(kv) {
			events = append(events, &mvccpb.Event{
				Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision}, PrevKv: kv,
			})
			delete(k, key)
		}
	}
	slices.SortFunc(events, func(a, b *mvccpb.Event) int {
		return cmp.Compare(string(a.GetKv().GetKey()), string(b.GetKv().GetKey()))
	})
	return events
}
