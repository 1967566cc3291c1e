package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"meshbridge/gateway"
	"meshbridge/store"
)

func TestRangeOptionsReachTheStore(t *testing.T) {
	s := start(t, gateway.Config{})
	c := etcdClient(t, s)
	ctx := within(t)
	for n, key := range []string{"a", "b", "c", "d"} { // revisions 2 to 5
		put(t, s.store, "/"+key, strings.Repeat("z", 4-n))
	}
	put(t, s.store, "/b", "") // revision 6
	for name, test := range map[string]struct {
		options []clientv3.OpOption
		want    string
	}{
		"all":            {nil, "/a /b /c /d count 4"},
		"limit":          {[]clientv3.OpOption{clientv3.WithLimit(2)}, "/a /b more count 4"},
		"keys only":      {[]clientv3.OpOption{clientv3.WithKeysOnly()}, "/a /b /c /d count 4"},
		"count only":     {[]clientv3.OpOption{clientv3.WithCountOnly()}, "count 4"},
		"old revision":   {[]clientv3.OpOption{clientv3.WithRev(3)}, "/a /b count 2"},
		"descending":     {[]clientv3.OpOption{clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)}, "/d /c /b /a count 4"},
		"by mod":         {[]clientv3.OpOption{clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend)}, "/a /c /d /b count 4"},
		"by value":       {[]clientv3.OpOption{clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)}, "/b /d /c /a count 4"},
		"by version":     {[]clientv3.OpOption{clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend), clientv3.WithLimit(1)}, "/b more count 4"},
		"modified since": {[]clientv3.OpOption{clientv3.WithMinModRev(5)}, "/b /d count 4"},
		"modified until": {[]clientv3.OpOption{clientv3.WithMaxModRev(4)}, "/a /c count 4"},
		"created since":  {[]clientv3.OpOption{clientv3.WithMinCreateRev(4)}, "/c /d count 4"},
		"created until":  {[]clientv3.OpOption{clientv3.WithMaxCreateRev(3)}, "/a /b count 4"},
		"serializable":   {[]clientv3.OpOption{clientv3.WithSerializable(), clientv3.WithLimit(1)}, "/a more count 4"},
	} {
		r, err := c.Get(ctx, "/", append(test.options, clientv3.WithPrefix())...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got strings.Builder
		for _, kv := range r.Kvs {
			fmt.Fprintf(&got, "%s ", kv.GetKey())
		}
		if r.More {
			got.WriteString("more ")
		}
		fmt.Fprintf(&got, "count %d", r.Count)
		if got.String() != test.want {
			t.Errorf("%s: got %q, want %q", name, got.String(), test.want)
		}
		if r.Header.GetRevision() != 6 {
			t.Errorf("%s: header revision %d", name, r.Header.GetRevision())
		}
	}
}

func TestTxn(t *testing.T) {
	s := start(t, gateway.Config{})
	c := etcdClient(t, s)
	put(t, s.store, "/c", "0")
	r, err := c.Txn(within(t)).
		If(clientv3.Compare(clientv3.Version("/a"), "=", 0), clientv3.Compare(clientv3.Value("/a"), "!=", "x").WithRange("/b")).
		Then(clientv3.OpPut("/wrong", "")).
		Else(
			clientv3.OpPut("/a", "1"),
			clientv3.OpGet("/a"),
			clientv3.OpTxn(
				[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision("/a"), "=", 0)},
				[]clientv3.Op{clientv3.OpPut("/b", "2"), clientv3.OpDelete("/c", clientv3.WithPrevKV())}, nil,
			),
		).Commit()
	if err != nil {
		t.Fatal(err)
	}
	if r.Succeeded || r.Header.GetRevision() != 3 || len(r.Responses) != 3 {
		t.Fatalf("%+v", r)
	}
	if p := r.Responses[0].GetResponsePut(); p.GetHeader().GetRevision() != 3 || p.GetHeader().GetClusterId() != 0 {
		t.Errorf("put: %v", p)
	}
	if g := r.Responses[1].GetResponseRange(); g.GetCount() != 1 || string(g.GetKvs()[0].GetValue()) != "1" {
		t.Errorf("range: %v", g)
	}
	nested := r.Responses[2].GetResponseTxn()
	if !nested.GetSucceeded() || nested.GetHeader() == nil || nested.GetHeader().GetRevision() != 0 {
		t.Fatalf("nested: %v", nested)
	}
	if d := nested.GetResponses()[1].GetResponseDeleteRange(); d.GetDeleted() != 1 || string(d.GetPrevKvs()[0].GetValue()) != "0" {
		t.Errorf("delete: %v", d)
	}
}

func TestErrorsAreEtcdsOwn(t *testing.T) {
	s := start(t, gateway.Config{})
	c := etcdClient(t, s)
	kv := pb.NewKVClient(c.ActiveConnection())
	ctx := within(t)
	for range 4 {
		put(t, s.store, "/a", "1")
	}
	if _, err := s.store.Compact(4); err != nil {
		t.Fatal(err)
	}
	rangeError := func(r *pb.RangeRequest) error { _, err := kv.Range(ctx, r); return err }
	putError := func(r *pb.PutRequest) error { _, err := kv.Put(ctx, r); return err }
	txnError := func(ops ...*pb.RequestOp) error { _, err := kv.Txn(ctx, &pb.TxnRequest{Success: ops}); return err }
	compactError := func(revision int64) error {
		_, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: revision})
		return err
	}
	putOf := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
	}
	unsorted := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a"), SortOrder: 7}}}
	var many []*pb.RequestOp
	for n := range 129 {
		many = append(many, putOf(strconv.Itoa(n)))
	}
	deep := &pb.TxnRequest{}
	for range 200 {
		deep = &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: deep}}}}
	}
	lease := func() error { _, err := c.Grant(ctx, 9_000_000_001); return err }
	big := make([]byte, 3<<19)
	for name, test := range map[string]struct{ got, want error }{
		"range without key":     {rangeError(&pb.RangeRequest{}), rpctypes.ErrGRPCEmptyKey},
		"range sort":            {rangeError(&pb.RangeRequest{Key: []byte("a"), SortOrder: 7}), rpctypes.ErrGRPCInvalidSortOption},
		"range target":          {rangeError(&pb.RangeRequest{Key: []byte("a"), SortTarget: 7}), rpctypes.ErrGRPCInvalidSortOption},
		"range future":          {rangeError(&pb.RangeRequest{Key: []byte("a"), Revision: 99}), rpctypes.ErrGRPCFutureRev},
		"range compacted":       {rangeError(&pb.RangeRequest{Key: []byte("a"), Revision: 3}), rpctypes.ErrGRPCCompacted},
		"put without key":       {putError(&pb.PutRequest{}), rpctypes.ErrGRPCEmptyKey},
		"put value ignored":     {putError(&pb.PutRequest{Key: []byte("a"), Value: []byte("v"), IgnoreValue: true}), rpctypes.ErrGRPCValueProvided},
		"put lease ignored":     {putError(&pb.PutRequest{Key: []byte("a"), Lease: 1, IgnoreLease: true}), rpctypes.ErrGRPCLeaseProvided},
		"put nothing to keep":   {putError(&pb.PutRequest{Key: []byte("no"), IgnoreValue: true}), rpctypes.ErrGRPCKeyNotFound},
		"put unknown lease":     {putError(&pb.PutRequest{Key: []byte("a"), Lease: 99}), rpctypes.ErrGRPCLeaseNotFound},
		"put too large":         {putError(&pb.PutRequest{Key: []byte("a"), Value: big}), rpctypes.ErrGRPCRequestTooLarge},
		"txn too many":          {txnError(many...), rpctypes.ErrGRPCTooManyOps},
		"txn too deep":          {txnError(&pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: deep}}), rpctypes.ErrGRPCTooManyOps},
		"txn duplicate":         {txnError(putOf("a"), putOf("a")), rpctypes.ErrGRPCDuplicateKey},
		"txn without key":       {txnError(putOf("")), rpctypes.ErrGRPCEmptyKey},
		"txn, first mistake":    {txnError(putOf(""), unsorted), rpctypes.ErrGRPCEmptyKey},
		"put, first mistake":    {putError(&pb.PutRequest{Value: big}), rpctypes.ErrGRPCEmptyKey},
		"txn without operation": {txnError(&pb.RequestOp{}), rpctypes.ErrGRPCKeyNotFound},
		"compact compacted":     {compactError(4), rpctypes.ErrGRPCCompacted},
		"compact future":        {compactError(99), rpctypes.ErrGRPCFutureRev},
		"lease too long":        {lease(), rpctypes.ErrLeaseTTLTooLarge},
	} {
		want := test.want
		if etcdError, ok := errors.AsType[rpctypes.EtcdError](test.got); ok { // of the wrapped client
			if etcdError.Error() != want.Error() {
				t.Errorf("%s: got %v, want %v", name, test.got, want)
			}
			continue
		}
		got, expected := status.Convert(test.got), status.Convert(want)
		if got.Code() != expected.Code() || got.Message() != expected.Message() {
			t.Errorf("%s: got %v, want %v", name, test.got, want)
		}
	}
	err := putError(&pb.PutRequest{Key: []byte("a"), Value: make([]byte, 2<<20)})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "vs. 2097152)") {
		t.Errorf("a message above 2 MiB: %v", err)
	}
	if err := putError(&pb.PutRequest{Key: []byte("a"), Value: big[:3<<19-100]}); err != nil {
		t.Errorf("a value just below the limit: %v", err)
	}
}

func TestLeases(t *testing.T) {
	s := start(t, gateway.Config{})
	c := etcdClient(t, s)
	ctx := within(t)
	lease, err := c.Grant(ctx, 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "/a", "1", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	alive, err := c.KeepAliveOnce(ctx, lease.ID)
	if err != nil || alive.TTL != 100 {
		t.Errorf("keep alive: %+v, %v", alive, err)
	}
	ttl, err := c.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	if err != nil || ttl.GrantedTTL != 100 || len(ttl.Keys) != 1 || string(ttl.Keys[0]) != "/a" {
		t.Errorf("time to live: %+v, %v", ttl, err)
	}
	leases, err := c.Leases(ctx)
	if err != nil || len(leases.Leases) != 1 || leases.Leases[0].ID != lease.ID {
		t.Errorf("leases: %+v, %v", leases, err)
	}
	revoked, err := c.Revoke(ctx, lease.ID)
	if err != nil || revoked.Header.GetRevision() != 3 {
		t.Errorf("revoke: %+v, %v", revoked, err)
	}
	if got, err := c.Get(ctx, "/a"); err != nil || got.Count != 0 {
		t.Errorf("the key outlived its lease: %+v, %v", got, err)
	}
	if _, err := c.KeepAliveOnce(ctx, lease.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("keep alive after the end: %v", err)
	}
	if gone, err := c.TimeToLive(ctx, lease.ID); err != nil || gone.TTL != -1 {
		t.Errorf("time to live after the end: %+v, %v", gone, err)
	}
}

func TestMaintenanceAndCluster(t *testing.T) {
	s := start(t, gateway.Config{Name: "n1", ClientURLs: []string{"http://127.0.0.1:2379"}})
	c := etcdClient(t, s)
	ctx := within(t)
	put(t, s.store, "/a", "1")
	st, err := c.Status(ctx, s.addr)
	if err != nil {
		t.Fatal(err)
	}
	if st.Leader == 0 || st.Leader != st.Header.GetMemberId() || st.DbSize <= 0 || st.RaftTerm == 0 ||
		st.RaftIndex < st.RaftAppliedIndex || st.RaftAppliedIndex == 0 || len(st.Errors) > 0 {
		t.Errorf("status: %v", st)
	}
	members, err := c.MemberList(ctx)
	if err != nil || len(members.Members) != 1 {
		t.Fatalf("members: %v, %v", members, err)
	}
	m := members.Members[0]
	if diff := cmp.Diff([]string{"http://127.0.0.1:2379"}, m.GetClientURLs()); diff != "" || m.GetName() != "n1" || m.GetID() != st.Leader {
		t.Errorf("member: %v", m)
	}
	if alarms, err := c.AlarmList(ctx); err != nil || len(alarms.Alarms) > 0 {
		t.Errorf("alarms: %v, %v", alarms, err)
	}
	if _, err := c.Defragment(ctx, s.addr); err != nil {
		t.Errorf("defragment: %v", err)
	}
	first, err := c.HashKV(ctx, s.addr, 0)
	if err != nil || first.Hash == 0 || first.HashRevision != 2 || first.CompactRevision != -1 {
		t.Errorf("hash: %v, %v", first, err)
	}
	if again, err := c.HashKV(ctx, s.addr, 2); err != nil || again.Hash != first.Hash {
		t.Errorf("hash: %v, then %v, %v", first, again, err)
	}
	put(t, s.store, "/a", "2")
	if later, err := c.HashKV(ctx, s.addr, 0); err != nil || later.Hash == first.Hash {
		t.Errorf("hash after a change: %v, %v", later, err)
	}
}

// The bridge owns some keys, ignores writes of others, and leaves the rest to clients.
func TestAdmission(t *testing.T) {
	s := start(t, gateway.Config{Admit: func(w gateway.Write) gateway.Admission {
		switch {
		case w.Delete && string(w.End) != "": // may reach anything
			return gateway.Denied
		case strings.HasPrefix(string(w.Key), "/own/"):
			return gateway.Denied
		case strings.HasPrefix(string(w.Key), "/dir/"):
			return gateway.Ignored
		}
		return gateway.Admitted
	}})
	c := etcdClient(t, s)
	ctx := within(t)
	denied := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := c.Put(ctx, "/own/1", "")
	denied("put", err)
	_, err = c.Delete(ctx, "/own/1")
	denied("delete", err)
	_, err = c.Delete(ctx, "/", clientv3.WithPrefix())
	denied("delete of a range", err)
	_, err = c.Txn(ctx).Then(clientv3.OpPut("/free", "")).Else(clientv3.OpPut("/own/1", "")).Commit()
	denied("put in the branch not taken", err)
	_, err = c.Txn(ctx).Then(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpDelete("/own/1")}, nil)).Commit()
	denied("nested delete", err)
	if revision := s.store.Revision(); revision != 1 {
		t.Errorf("denied writes left revision %d", revision)
	}
	status, body := post(t, s, "/v3/kv/put", `{"key":"`+b64("/own/1")+`"}`)
	if want := `{"error":"etcdserver: permission denied","code":7,"message":"etcdserver: permission denied"}`; status != 403 || body != want {
		t.Errorf("over HTTP: %d %s", status, body)
	}

	if r, err := c.Put(ctx, "/dir/1", "x", clientv3.WithPrevKV()); err != nil || r.Header.GetRevision() != 1 || r.PrevKv != nil {
		t.Errorf("ignored put: %v, %v", r, err)
	}
	if r, err := c.Delete(ctx, "/dir/1"); err != nil || r.Header.GetRevision() != 1 || r.Deleted != 0 {
		t.Errorf("ignored delete: %v, %v", r, err)
	}
	r, err := c.Txn(ctx).Then(
		clientv3.OpPut("/dir/1", "x"), clientv3.OpPut("/free", "y"), clientv3.OpDelete("/dir/2"), clientv3.OpGet("/free"),
	).Commit()
	if err != nil || !r.Succeeded || r.Header.GetRevision() != 2 || len(r.Responses) != 4 {
		t.Fatalf("txn with ignored writes: %v, %v", r, err)
	}
	if r.Responses[0].GetResponsePut() == nil || r.Responses[1].GetResponsePut() == nil ||
		r.Responses[2].GetResponseDeleteRange() == nil || r.Responses[3].GetResponseRange().GetCount() != 1 {
		t.Errorf("responses: %v", r.Responses)
	}
	if got, err := s.store.Range([]byte("/dir/"), []byte("/dir0"), store.RangeOptions{}); err != nil || got.Count != 0 {
		t.Errorf("ignored writes were written: %+v, %v", got, err)
	}
}

func TestNewValidatesItsConfig(t *testing.T) {
	if _, err := gateway.New(gateway.Config{}); err == nil {
		t.Error("no store")
	}
	if _, err := gateway.New(gateway.Config{Store: newStore(t, store.Config{}), HoldTimeout: -1}); err == nil {
		t.Error("negative timeout")
	}
}

func TestClosedStoreIsUnavailable(t *testing.T) {
	s := start(t, gateway.Config{})
	kv := pb.NewKVClient(etcdClient(t, s).ActiveConnection())
	s.store.Close()
	ctx, cancel := context.WithTimeout(within(t), patience)
	defer cancel()
	_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("a")})
	if got, want := status.Convert(err), status.Convert(rpctypes.ErrGRPCStopped); got.Code() != want.Code() || got.Message() != want.Message() {
		t.Errorf("put: %v", err)
	}
}
