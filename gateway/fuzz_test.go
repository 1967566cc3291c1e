package gateway

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"meshbridge/store"
)

// requestMessages are the requests that come as JSON.
func requestMessages() []proto.Message {
	return []proto.Message{
		new(pb.RangeRequest), new(pb.PutRequest), new(pb.DeleteRangeRequest), new(pb.TxnRequest), new(pb.CompactionRequest),
		new(pb.WatchRequest), new(pb.LeaseGrantRequest), new(pb.LeaseRevokeRequest), new(pb.LeaseKeepAliveRequest),
		new(pb.LeaseTimeToLiveRequest), new(pb.AlarmRequest), new(pb.HashKVRequest), new(pb.DowngradeRequest), new(pb.MemberAddRequest),
		new(pb.AuthenticateRequest), new(pb.AuthUserAddRequest), new(pb.AuthRoleGrantPermissionRequest),
		new(v3lockpb.LockRequest), new(v3electionpb.ProclaimRequest),
	}
}

// Whatever comes is decoded or refused as invalid; what was decoded means the same when it is written
// out and decoded again.
func FuzzRequests(f *testing.F) {
	for _, body := range []string{
		``, `{}`, `{"key":"L2FwaXNpeA==","range_end":"L2FwaXNpeQ==","limit":0,"sort_order":0,"keys_only":false}`,
		`{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA=","start_revision":1.7e+14}}`,
		`{"createRequest":{"key":"-_8","watchId":"7","filters":["NOPUT",1]}}{"cancel_request":{"watch_id":7}} {"progress_request":{}}`,
		`{"key":"L2E`, `[[[[`, `{"revision":1e400}`, "{\"key\":\"\xff\"}", `{"limit":"1e3"}`, `null`, `{"create_request":null}`,
		`{"compare":[{"key":"YQ==","target":"MOD","mod_revision":"2"}],"success":[{"request_txn":{"success":[{"request_put":{"key":"YQ=="}}]}}]}`,
		`{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}`, `{"action":"ACTIVATE","memberID":"1","alarm":"NOSPACE"}`,
		`{"leader":{"name":"ZQ==","key":"ZS82MQ==","rev":"1","lease":"97"},"value":"Mw=="}`, `{"TTL":60,"ID":"-7"}`, `{"name":"u","options":{"no_password":true}}`,
	} {
		f.Add(uint8(0), []byte(body))
		f.Add(uint8(3), []byte(body))
		f.Add(uint8(5), []byte(body))
	}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		messages := requestMessages()
		request := messages[int(kind)%len(messages)]
		checkDecoded(t, decodeRequest(body, request), request)
		requests, err := decodeWatchRequests(body)
		checkRefused(t, err)
		for _, r := range requests {
			checkDecoded(t, nil, r)
		}
	})
}

func checkRefused(t *testing.T, err error) {
	t.Helper()
	if err != nil && (status.Code(err) != codes.InvalidArgument || strings.Contains(err.Error(), "\u00a0")) {
		t.Fatalf("%v", err)
	}
}

func checkDecoded(t *testing.T, err error, got proto.Message) {
	t.Helper()
	if err != nil {
		checkRefused(t, err)
		return
	}
	text, err := protojson.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	again := got.ProtoReflect().New().Interface()
	if err := decodeRequest(text, again); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if !proto.Equal(got, again) {
		t.Fatalf("%v became %v", got, again)
	}
}

// A transaction is refused if and only if a rule of etcd says so, by a plain reading of the rules.
func FuzzTxn(f *testing.F) {
	const put, del = `{"request_put":{"key":"YQ=="}}`, `{"request_delete_range":{"key":"YQ=="}}`
	nest := func(success, failure string) string {
		return `{"request_txn":{"success":[` + success + `],"failure":[` + failure + `]}}`
	}
	for _, ops := range []string{
		``, `{}`, put, put + `,` + put, put + `,` + del, del, `{"request_put":{}}`, nest(put, put), nest(put, ``) + `,` + put, nest(del, put),
		nest(put, ``) + `,` + nest(del, ``), nest(del, ``) + `,` + nest(put, ``), nest(nest(put, del), ``) + `,` + del,
		`{"request_delete_range":{"key":"AA==","range_end":"AA=="}},{"request_put":{"key":"YQ==","ignore_value":true}}`,
		`{"request_delete_range":{"key":"AA==","range_end":"eg=="}},` + put, `{"request_delete_range":{"key":"eg==","range_end":"AQ=="}},` + put,
		`{"request_put":{"key":"YQ==","value":"YQ==","ignore_value":true}}`, `{"request_put":{"key":"YQ==","lease":1,"ignore_lease":true}}`,
		`{"request_range":{"key":"YQ==","sort_order":7}}`, `{"request_range":{"key":"YQ==","revision":7}}`, strings.Repeat(del+`,`, 129) + del,
	} {
		f.Add([]byte(`{"success":[` + ops + `]}`))
		f.Add([]byte(`{"compare":[{"key":"YQ==","version":1}],"failure":[` + ops + `]}`))
	}
	f.Add([]byte(`{"compare":[{}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		request := new(pb.TxnRequest)
		if decodeRequest(body, request) != nil || proto.Size(request) > 1<<20 {
			return
		}
		st, err := store.New(store.Config{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{Store: st})
		if err != nil {
			t.Fatal(err)
		}
		response, err := (&kvService{endpoint: &endpoint{Server: s}}).Txn(context.Background(), request)
		var rules txnRules
		rules.txn(request, defaultTxnOps)
		rules.branches(request, nil)
		rules.conflicts()
		switch {
		case len(rules.broken) > 0:
			if !slices.ContainsFunc(rules.broken, func(broken error) bool { return errors.Is(err, broken) }) {
				t.Fatalf("%v: %v, want one of %v", request, err, rules.broken)
			}
		case err != nil && !rules.mayFail(err):
			t.Fatalf("%v: %v, but it is valid", request, err)
		case err == nil && len(response.GetResponses()) != len(request.GetSuccess()) && len(response.GetResponses()) != len(request.GetFailure()):
			t.Fatalf("%v: %v", request, response)
		}
		if err != nil && st.Revision() != 1 {
			t.Fatalf("%v: %v, and revision %d", request, err, st.Revision())
		}
	})
}

// txnRules collects the rules that a transaction breaks.
type txnRules struct {
	broken  []error
	puts    []placedOp
	deletes []placedOp
	keeps   bool // a put wants to keep what may not be there
}

// placedOp is an operation and its place: in turn a branch and an index in it, from the outside to the
// inside.
type placedOp struct {
	place    []int
	key, end string
}

func (r *txnRules) check(broken bool, rule error) {
	if broken {
		r.broken = append(r.broken, rule)
	}
}

// txn checks what each operation has to be like, and their number.
func (r *txnRules) txn(t *pb.TxnRequest, budget int) {
	most := max(len(t.GetCompare()), len(t.GetSuccess()), len(t.GetFailure()))
	r.check(most > budget, rpctypes.ErrGRPCTooManyOps)
	for _, c := range t.GetCompare() {
		r.check(len(c.GetKey()) == 0, rpctypes.ErrGRPCEmptyKey)
	}
	for _, op := range slices.Concat(t.GetSuccess(), t.GetFailure()) {
		switch op := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			r.check(len(op.RequestRange.GetKey()) == 0, rpctypes.ErrGRPCEmptyKey)
			order, target := op.RequestRange.GetSortOrder(), op.RequestRange.GetSortTarget()
			r.check(order < 0 || order > pb.RangeRequest_DESCEND || target < 0 || target > pb.RangeRequest_VALUE, rpctypes.ErrGRPCInvalidSortOption)
		case *pb.RequestOp_RequestPut:
			put := op.RequestPut
			r.check(len(put.GetKey()) == 0, rpctypes.ErrGRPCEmptyKey)
			r.check(put.GetIgnoreValue() && len(put.GetValue()) > 0, rpctypes.ErrGRPCValueProvided)
			r.check(put.GetIgnoreLease() && put.GetLease() != 0, rpctypes.ErrGRPCLeaseProvided)
			r.keeps = r.keeps || put.GetIgnoreValue() || put.GetIgnoreLease()
		case *pb.RequestOp_RequestDeleteRange:
			r.check(len(op.RequestDeleteRange.GetKey()) == 0, rpctypes.ErrGRPCEmptyKey)
		case *pb.RequestOp_RequestTxn:
			r.txn(op.RequestTxn, max(budget-most, 0))
		default:
			r.check(true, rpctypes.ErrGRPCKeyNotFound)
		}
	}
}

// branches notes the place of every put and delete.
func (r *txnRules) branches(t *pb.TxnRequest, place []int) {
	for branch, ops := range [][]*pb.RequestOp{t.GetSuccess(), t.GetFailure()} {
		for i, op := range ops {
			here := append(slices.Clone(place), branch, i)
			switch op := op.GetRequest().(type) {
			case *pb.RequestOp_RequestPut:
				r.puts = append(r.puts, placedOp{here, string(op.RequestPut.GetKey()), ""})
			case *pb.RequestOp_RequestDeleteRange:
				r.deletes = append(r.deletes, placedOp{here, string(op.RequestDeleteRange.GetKey()), string(op.RequestDeleteRange.GetRangeEnd())})
			case *pb.RequestOp_RequestTxn:
				r.branches(op.RequestTxn, here)
			}
		}
	}
}

// conflicts checks that no two operations that can both run put one key, or put and delete it.
func (r *txnRules) conflicts() {
	for i, a := range r.puts {
		for _, b := range r.puts[:i] {
			_, _, together := relation(a, b)
			r.check(together && a.key == b.key, rpctypes.ErrGRPCDuplicateKey)
		}
		for _, d := range r.deletes {
			// Of two nested transactions, the second may delete what the first puts. A range
			// up to the last key counts for nothing.
			putAt, deleteAt, together := relation(a, d)
			nested := putAt != math.MinInt && deleteAt != math.MinInt
			within := a.key == d.key && d.end == "" || d.key <= a.key && a.key < d.end && d.end != "\x00"
			r.check(together && within && (!nested || deleteAt < putAt), rpctypes.ErrGRPCDuplicateKey)
		}
	}
}

// relation tells whether a and b can both run, and which element of the list where they part each is
// in; math.MinInt if it is that element itself.
func relation(a, b placedOp) (aAt, bAt int, together bool) {
	part := 0
	for part < min(len(a.place), len(b.place)) && a.place[part] == b.place[part] {
		part++
	}
	if part%2 == 0 {
		return 0, 0, false // the one branch or the other
	}
	at := func(op placedOp) int {
		if part == len(op.place)-1 {
			return math.MinInt
		}
		return op.place[part]
	}
	return at(a), at(b), true
}

// mayFail tells whether a valid transaction may fail so, because of what an empty store holds.
func (r *txnRules) mayFail(err error) bool {
	return errors.Is(err, rpctypes.ErrGRPCLeaseNotFound) || errors.Is(err, rpctypes.ErrGRPCFutureRev) ||
		errors.Is(err, rpctypes.ErrGRPCKeyNotFound) && r.keeps
}
