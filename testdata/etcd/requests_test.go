package etcd

import (
	"fmt"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// requestMaker makes requests about eleven keys, so that they meet: within so
// few, equal sort keys keep the order of the keys.
type requestMaker struct {
	*rand.Rand

	// chooseLeases lets the servers choose ids of leases, which then differ.
	// Without it every lease has the same id on both, and so has their hash.
	chooseLeases bool

	revision int64   // the store's, as far as known
	leases   []int64 // granted so far, whether they still exist or not

	compacted map[int64]bool // revisions that were
	fragile   map[int64]bool // revisions that must not be; see keyPutAgain
}

func newRequestMaker(random *rand.Rand, chooseLeases bool) *requestMaker {
	return &requestMaker{Rand: random, chooseLeases: chooseLeases, compacted: map[int64]bool{}, fragile: map[int64]bool{}}
}

// unknownLease is never granted.
const unknownLease = 999

// saw takes note of the answer to a request that did not fail.
func (r *requestMaker) saw(request, response proto.Message) {
	switch q := request.(type) {
	case *pb.CompactionRequest:
		r.compacted[q.GetRevision()] = true
	case *pb.TxnRequest:
		if deletesOpenRange(q) {
			r.fragile[response.(*pb.TxnResponse).GetHeader().GetRevision()] = true
		}
	}
	if h, ok := response.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		r.revision = max(r.revision, h.GetHeader().GetRevision())
	}
	if grant, ok := response.(*pb.LeaseGrantResponse); ok {
		r.leases = append(r.leases, grant.GetID())
	}
}

func (r *requestMaker) next() proto.Message {
	switch n := r.IntN(100); {
	case n < 33:
		return r.put()
	case n < 50:
		return r.readRange()
	case n < 60:
		return r.deleteRange()
	case n < 84:
		return r.txn()
	case n < 86:
		c := &pb.CompactionRequest{Revision: max(1, r.someRevision()), Physical: r.chance(50)}
		if r.fragile[c.GetRevision()] {
			c.Revision = 1
		}
		return c
	case n < 88 && !r.chooseLeases:
		h := &pb.HashKVRequest{Revision: r.someRevision()}
		if r.compacted[h.GetRevision()] { // see hashOfCompaction
			h.Revision = 0
		}
		if r.fragile[h.GetRevision()] || r.fragile[r.revision] { // see keyPutAgain
			return r.put()
		}
		return h
	default:
		return r.leaseRequest()
	}
}

func (r *requestMaker) chance(percent int) bool { return r.IntN(100) < percent }

func (r *requestMaker) key() []byte {
	switch r.IntN(50) {
	case 0:
		return nil
	case 1:
		return []byte{0xff}
	default:
		return []byte{byte('a' + r.IntN(10))}
	}
}

// span is a key and, often, the end of a range: a later or an earlier key, or
// "\x00" for everything from the key on.
func (r *requestMaker) span() (key, end []byte) {
	switch r.IntN(8) {
	case 0, 1:
		return r.key(), r.key()
	case 2:
		return r.key(), []byte{0}
	case 3:
		return []byte{0}, []byte{0}
	default:
		return r.key(), nil
	}
}

// someRevision is mostly one that exists; those below one count as none.
func (r *requestMaker) someRevision() int64 {
	switch r.IntN(20) {
	case 0:
		return -1
	case 1:
		return 0
	default:
		return max(1, r.revision+2-r.Int64N(60))
	}
}

// lease is one of the last few granted, or one that never was.
func (r *requestMaker) lease() int64 {
	if len(r.leases) == 0 || r.chance(10) {
		return unknownLease
	}
	recent := r.leases[max(0, len(r.leases)-6):]
	return recent[r.IntN(len(recent))]
}

func (r *requestMaker) put() *pb.PutRequest {
	p := &pb.PutRequest{Key: r.key(), PrevKv: r.chance(50)}
	if p.IgnoreValue = r.chance(10); !p.GetIgnoreValue() || r.chance(10) {
		p.Value = r.value()
	}
	if p.IgnoreLease = r.chance(10); r.chance(25) && !p.GetIgnoreLease() || r.chance(2) {
		p.Lease = r.lease()
	}
	return p
}

// value is one of five texts, or none.
func (r *requestMaker) value() []byte {
	if r.chance(10) {
		return nil
	}
	return fmt.Append(nil, r.IntN(5))
}

func (r *requestMaker) readRange() *pb.RangeRequest {
	g := &pb.RangeRequest{
		SortOrder:    pb.RangeRequest_SortOrder(r.IntN(3)),
		SortTarget:   pb.RangeRequest_SortTarget(r.IntN(5)),
		KeysOnly:     r.chance(10),
		CountOnly:    r.chance(10),
		Serializable: r.chance(50),
	}
	g.Key, g.RangeEnd = r.span()
	if r.chance(30) {
		g.Revision = r.someRevision()
	}
	if r.chance(30) {
		g.Limit = r.Int64N(6) - 1
	}
	for _, filter := range []*int64{&g.MinModRevision, &g.MaxModRevision, &g.MinCreateRevision, &g.MaxCreateRevision} {
		if r.chance(5) {
			*filter = r.someRevision()
		}
	}
	switch r.IntN(100) {
	case 0:
		g.SortOrder = 7
	case 1:
		g.SortTarget = -1
	}
	return g
}

func (r *requestMaker) deleteRange() *pb.DeleteRangeRequest {
	d := &pb.DeleteRangeRequest{PrevKv: r.chance(50)}
	if d.Key, d.RangeEnd = r.span(); r.chance(70) {
		d.RangeEnd = nil
	}
	return d
}

func (r *requestMaker) leaseRequest() proto.Message {
	switch n := r.IntN(10); {
	case n < 4:
		g := &pb.LeaseGrantRequest{TTL: int64(1+r.IntN(9)) * leaseStep}
		if g.ID = r.Int64N(40) - 5; g.GetID() == 0 || r.chooseLeases && r.chance(50) {
			if g.ID = 0; !r.chooseLeases {
				g.ID = 100
			}
		}
		if r.chance(5) {
			g.TTL = 9_000_000_001
		}
		return g
	case n < 6:
		return &pb.LeaseRevokeRequest{ID: r.lease()}
	case n < 7:
		return &pb.LeaseKeepAliveRequest{ID: r.lease()}
	case n < 9:
		return &pb.LeaseTimeToLiveRequest{ID: r.lease(), Keys: r.chance(80)}
	default:
		return &pb.LeaseLeasesRequest{}
	}
}

// txn is a transaction that does not stop etcd; see keepAfterDelete.
func (r *requestMaker) txn() *pb.TxnRequest {
	t := r.nestedTxn(0)
	if deletesOpenRange(t) {
		dropIgnoreFlags(t)
	}
	return t
}

func (r *requestMaker) nestedTxn(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range r.IntN(3) {
		t.Compare = append(t.Compare, r.compare())
	}
	for range r.IntN(4) {
		t.Success = append(t.Success, r.op(depth))
	}
	for range r.IntN(3) {
		t.Failure = append(t.Failure, r.op(depth))
	}
	if r.chance(1) {
		for range 126 + r.IntN(4) { // around the limit of operations
			t.Success = append(t.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
				RequestRange: &pb.RangeRequest{Key: []byte("a"), CountOnly: true},
			}})
		}
	}
	return t
}

func (r *requestMaker) op(depth int) *pb.RequestOp {
	switch n := r.IntN(20); {
	case n < 8:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r.put()}}
	case n < 13:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r.readRange()}}
	case n < 17 || depth > 2:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r.deleteRange()}}
	case n == 17 && r.chance(10):
		return &pb.RequestOp{}
	default:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r.nestedTxn(depth + 1)}}
	}
}

func deletesOpenRange(t *pb.TxnRequest) bool {
	for _, op := range operations(t) {
		if end := op.GetRequestDeleteRange().GetRangeEnd(); len(end) == 1 && end[0] == 0 || deletesOpenRange(op.GetRequestTxn()) {
			return true
		}
	}
	return false
}

func dropIgnoreFlags(t *pb.TxnRequest) {
	for _, op := range operations(t) {
		if p := op.GetRequestPut(); p != nil {
			p.IgnoreValue, p.IgnoreLease = false, false
		}
		dropIgnoreFlags(op.GetRequestTxn())
	}
}

// operations are those of both branches.
func operations(t *pb.TxnRequest) []*pb.RequestOp {
	return append(append([]*pb.RequestOp(nil), t.GetSuccess()...), t.GetFailure()...)
}

// compare is a condition about any target. Now and then its operand is of
// another kind than the target, or is missing.
func (r *requestMaker) compare() *pb.Compare {
	c := &pb.Compare{Key: r.key(), Result: pb.Compare_CompareResult(r.IntN(4)), Target: pb.Compare_CompareTarget(r.IntN(5))}
	if r.chance(30) {
		_, c.RangeEnd = r.span()
	}
	if c.GetTarget() == pb.Compare_LEASE && r.chooseLeases && r.chance(50) {
		// Which of two ids is higher is up to the server that chose them.
		c.Result = []pb.Compare_CompareResult{pb.Compare_EQUAL, pb.Compare_NOT_EQUAL}[r.IntN(2)]
		c.TargetUnion = &pb.Compare_Lease{Lease: r.lease()}
		return c
	}
	kind := c.GetTarget()
	if r.chance(3) {
		kind = pb.Compare_CompareTarget(r.IntN(6))
	}
	switch kind {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: r.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: r.someRevision()}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: r.someRevision()}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: 0}
		if !r.chooseLeases {
			c.TargetUnion = &pb.Compare_Lease{Lease: r.lease()}
		}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: r.value()}
	}
	return c
}
