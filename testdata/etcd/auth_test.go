package etcd

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// authFlags make both servers hash passwords quickly.
func authFlags(args ...string) []string { return append([]string{"--bcrypt-cost", "4"}, args...) }

// authPair is the two servers under comparison with what a test knows of them.
type authPair struct {
	etcd, meshbridge             authCaller
	etcdTokens, meshbridgeTokens tokens
	log                          []string
}

func newAuthPair(etcd, meshbridge authCaller) *authPair {
	return &authPair{etcd: etcd, meshbridge: meshbridge, etcdTokens: tokens{}, meshbridgeTokens: tokens{}}
}

// call makes a request as the owner of a token, of which there are two in
// truth, and compares the answers.
func (p *authPair) call(t *testing.T, request proto.Message, in, name string, bearer bool) answer {
	t.Helper()
	token := p.etcdTokens.field(in, name, bearer)
	p.log = append(p.log, describe(request, token, name))
	want := p.etcd.call(t, request, token)
	got := p.meshbridge.call(t, request, p.meshbridgeTokens.field(in, name, bearer))
	if r, ok := request.(*pb.AuthenticateRequest); ok && want.response != nil && got.response != nil {
		slot := fmt.Sprintf("%s %d", r.GetName(), len(p.etcdTokens)%3)
		p.etcdTokens.take(slot, want)
		p.meshbridgeTokens.take(slot, got)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{}), protocmp.Transform()); diff != "" {
		t.Fatalf("request %d is answered differently (-etcd +meshbridge):\n%s\nthe last requests:\n%s",
			len(p.log), diff, strings.Join(p.log[max(0, len(p.log)-12):], "\n"))
	}
	return want
}

// eachAuthTransport runs a test with fresh servers over gRPC and over HTTP.
func eachAuthTransport(t *testing.T, flags []string, test func(t *testing.T, p *authPair)) {
	t.Helper()
	t.Run("gRPC", func(t *testing.T) {
		t.Parallel()
		etcd, meshbridge := startEtcd(t, authFlags(flags...)...), startMeshbridge(t, authFlags(flags...)...)
		test(t, newAuthPair(newGRPCAuthCaller(t, etcd), newGRPCAuthCaller(t, meshbridge)))
	})
	t.Run("HTTP", func(t *testing.T) {
		t.Parallel()
		etcd, meshbridge := startEtcd(t, authFlags(flags...)...), startMeshbridge(t, authFlags(flags...)...)
		test(t, newAuthPair(newHTTPAuthCaller(t, etcd), newHTTPAuthCaller(t, meshbridge)))
	})
}

// Random administration, and requests of every kind by users with and without
// permission, with tokens that are good, old and wrong.
func TestRandomRequestsUnderAuthenticationGetTheAnswersOfEtcd(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string]func(t *testing.T) []string{
		"simple": func(*testing.T) []string { return nil },
		"jwt":    jwtFlags,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachAuthTransport(t, flags(t), func(t *testing.T, p *authPair) {
				t.Helper()
				random := authMaker{randomness(t)}
				setUpAuth(t, p)
				for range *opsFlag {
					if random.IntN(12) == 0 {
						// Without root, most is refused.
						p.call(t, &pb.AuthenticateRequest{Name: "root", Password: "root"}, "", "", false)
					}
					names := append(p.etcdTokens.names(), "", "wrong", "wrong.1", "abcdefghijklmnop.3")
					in := p.etcd.fields()[random.IntN(len(p.etcd.fields()))]
					name := names[random.IntN(len(names))]
					if random.IntN(4) == 0 {
						name = "root 0"
					}
					p.call(t, random.next(), in, name, random.IntN(3) == 0)
				}
			})
		})
	}
}

// setUpAuth makes users with roles and turns authentication on.
func setUpAuth(t *testing.T, p *authPair) {
	t.Helper()
	for _, request := range []proto.Message{
		&pb.AuthUserAddRequest{Name: "root", Password: "root"},
		&pb.AuthUserGrantRoleRequest{User: "root", Role: "root"},
		&pb.AuthUserAddRequest{Name: "alice", Password: "alice"},
		&pb.AuthUserAddRequest{Name: "bob", Password: "bob"},
		&pb.AuthRoleAddRequest{Name: "reader"},
		&pb.AuthRoleAddRequest{Name: "writer"},
		&pb.AuthRoleGrantPermissionRequest{Name: "reader", Perm: &authpb.Permission{Key: []byte("a"), RangeEnd: []byte("d")}},
		&pb.AuthRoleGrantPermissionRequest{Name: "writer", Perm: &authpb.Permission{PermType: authpb.Permission_WRITE, Key: []byte("b"), RangeEnd: []byte("e")}},
		&pb.AuthUserGrantRoleRequest{User: "alice", Role: "reader"},
		&pb.AuthUserGrantRoleRequest{User: "alice", Role: "writer"},
		&pb.AuthUserGrantRoleRequest{User: "bob", Role: "reader"},
		&pb.AuthEnableRequest{},
		&pb.AuthenticateRequest{Name: "root", Password: "root"},
		&pb.AuthenticateRequest{Name: "alice", Password: "alice"},
		&pb.AuthenticateRequest{Name: "bob", Password: "bob"},
	} {
		if a := p.call(t, request, "", "", false); a.failure != "" {
			t.Fatalf("%T: %s", request, a.failure)
		}
	}
}

// jwtFlags make both servers sign tokens with the same key.
func jwtFlags(t *testing.T) []string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--auth-token", "jwt,sign-method=RS256,priv-key=" + path}
}

// authMaker makes random requests.
type authMaker struct{ *mathrand.Rand }

func pick[T any](r authMaker, of ...T) T { return of[r.IntN(len(of))] }

func (r authMaker) user() string { return pick(r, "root", "alice", "bob", "carol", "dave", "") }

func (r authMaker) role() string { return pick(r, "root", "reader", "writer", "third", "fourth", "") }

func (r authMaker) password(user string) string { return pick(r, user, user, user, "another", "") }

func (r authMaker) key() []byte { return []byte(pick(r, "a", "b", "bb", "c", "d", "e")) }

// end is that of a range which begins with key.
func (r authMaker) end(key []byte) []byte {
	end := pick(r, "", "", "", "b", "c", "d", "e", "f", "\x00")
	if len(end) > 0 && end != "\x00" && end <= string(key) {
		return nil // see permissionOfNothing
	}
	return []byte(end)
}

func (r authMaker) span() (key, end []byte) {
	key = r.key()
	return key, r.end(key)
}

func (r authMaker) chance(percent int) bool { return r.IntN(100) < percent }

func (r authMaker) lease() int64 { return 1 + r.Int64N(4) }

func (r authMaker) next() proto.Message {
	switch n := r.IntN(100); {
	case n < 45:
		return r.keys()
	case n < 60:
		return r.leases()
	case n < 67:
		return r.maintenance()
	default:
		return r.administration()
	}
}

func (r authMaker) keys() proto.Message {
	switch n := r.IntN(10); {
	case n < 3:
		return r.readRange()
	case n < 5:
		return r.put()
	case n < 6:
		return r.delete()
	case n < 8:
		return r.txn(2)
	default:
		key, end := r.span()
		create := &pb.WatchCreateRequest{Key: key, RangeEnd: end}
		if r.chance(10) {
			create.Key = nil
		}
		if r.chance(10) {
			create.StartRevision = -1
		}
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}
	}
}

func (r authMaker) readRange() *pb.RangeRequest {
	key, end := r.span()
	request := &pb.RangeRequest{Key: key, RangeEnd: end, Serializable: r.chance(30)}
	if r.chance(5) {
		request.Key = nil
	}
	if r.chance(5) {
		request.Revision = 1e9
	}
	return request
}

func (r authMaker) put() *pb.PutRequest {
	request := &pb.PutRequest{Key: r.key(), Value: []byte("v"), PrevKv: r.chance(30)}
	if r.chance(30) {
		request.Lease = r.lease()
	}
	switch r.IntN(20) {
	case 0:
		request.Key = nil
	case 1:
		request.IgnoreValue = true
	case 2:
		request.IgnoreLease = true
	}
	return request
}

func (r authMaker) delete() *pb.DeleteRangeRequest {
	request := &pb.DeleteRangeRequest{Key: r.key(), PrevKv: r.chance(30)}
	if r.chance(30) {
		request.RangeEnd = r.end(request.GetKey())
	}
	if r.chance(5) {
		request.Key = nil
	}
	return request
}

func (r authMaker) txn(depth int) *pb.TxnRequest {
	txn := new(pb.TxnRequest)
	if r.chance(30) {
		key, end := r.span()
		txn.Compare = append(txn.Compare, &pb.Compare{
			Key: key, RangeEnd: end, Target: pb.Compare_VERSION, Result: pb.Compare_GREATER,
			TargetUnion: &pb.Compare_Version{Version: 0},
		})
	}
	for _, branch := range []*[]*pb.RequestOp{&txn.Success, &txn.Failure} {
		for range r.IntN(3) {
			*branch = append(*branch, r.op(depth))
		}
	}
	return txn
}

func (r authMaker) op(depth int) *pb.RequestOp {
	switch n := r.IntN(10); {
	case n < 4:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r.readRange()}}
	case n < 7:
		put := r.put()
		put.IgnoreValue, put.IgnoreLease = false, false // see intended differences
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
	case n < 9 || depth == 0:
		deletion := r.delete()
		if string(deletion.GetRangeEnd()) == "\x00" {
			deletion.RangeEnd = nil
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: deletion}}
	default:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r.txn(depth - 1)}}
	}
}

func (r authMaker) leases() proto.Message {
	switch r.IntN(5) {
	case 0:
		return &pb.LeaseGrantRequest{ID: r.lease(), TTL: leaseStep}
	case 1:
		return &pb.LeaseRevokeRequest{ID: r.lease()}
	case 2:
		return &pb.LeaseTimeToLiveRequest{ID: r.lease(), Keys: r.chance(50)}
	case 3:
		return &pb.LeaseKeepAliveRequest{ID: r.lease()}
	default:
		return &pb.LeaseLeasesRequest{}
	}
}

func (r authMaker) maintenance() proto.Message {
	return pick[proto.Message](
		r, &pb.StatusRequest{}, &pb.AlarmRequest{}, &pb.DefragmentRequest{}, &pb.HashRequest{},
		&pb.HashKVRequest{}, &pb.MemberListRequest{}, &pb.MemberRemoveRequest{ID: 1},
		&pb.CompactionRequest{Revision: 1e9}, &pb.MoveLeaderRequest{TargetID: 1},
		&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE},
		&pb.SnapshotRequest{}, &pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: "3.4.0"},
	)
}

func (r authMaker) administration() proto.Message {
	user := r.user()
	switch r.IntN(20) {
	case 0:
		return &pb.AuthEnableRequest{}
	case 1:
		if r.chance(70) {
			return &pb.AuthEnableRequest{}
		}
		return &pb.AuthDisableRequest{}
	case 2:
		return &pb.AuthStatusRequest{}
	case 3, 4, 5:
		return &pb.AuthenticateRequest{Name: user, Password: r.password(user)}
	case 6:
		add := &pb.AuthUserAddRequest{Name: user, Password: r.password(user)}
		if r.chance(30) {
			add.Options = &authpb.UserAddOptions{NoPassword: r.chance(50)}
		}
		if r.chance(10) {
			add.HashedPassword = pick(r, "bm8gaGFzaA==", "no base64")
		}
		return add
	case 7:
		return &pb.AuthUserGetRequest{Name: user}
	case 8:
		return &pb.AuthUserListRequest{}
	case 9:
		if r.chance(30) {
			return &pb.AuthUserDeleteRequest{Name: user}
		}
		return &pb.AuthUserGetRequest{Name: user}
	case 10:
		if user == "root" && r.chance(90) {
			return &pb.AuthUserListRequest{}
		}
		change := &pb.AuthUserChangePasswordRequest{Name: user, Password: r.password(user)}
		if r.chance(20) {
			change.HashedPassword = pick(r, "bm8gaGFzaA==", "no base64")
		}
		return change
	case 11, 12:
		return &pb.AuthUserGrantRoleRequest{User: user, Role: r.role()}
	case 13:
		return &pb.AuthUserRevokeRoleRequest{Name: user, Role: r.role()}
	case 14:
		return &pb.AuthRoleAddRequest{Name: r.role()}
	case 15:
		return &pb.AuthRoleGetRequest{Role: r.role()}
	case 16:
		return &pb.AuthRoleListRequest{}
	case 17:
		if r.chance(30) {
			return &pb.AuthRoleDeleteRequest{Role: r.role()}
		}
		return &pb.AuthRoleGetRequest{Role: r.role()}
	case 18:
		grant := &pb.AuthRoleGrantPermissionRequest{Name: r.role()}
		if !r.chance(5) {
			key, end := r.span()
			if r.chance(10) {
				end = []byte("a") // no range
			}
			grant.Perm = &authpb.Permission{PermType: authpb.Permission_Type(r.IntN(3)), Key: key, RangeEnd: end}
		}
		return grant
	default:
		key, end := r.span()
		return &pb.AuthRoleRevokePermissionRequest{Role: r.role(), Key: key, RangeEnd: end}
	}
}

// A request with several things wrong hears of the one that etcd would find
// first: whether it is well formed, then whose it is, then its size, and last
// what its sender may do.
func TestMistakesAreFoundInEtcdsOrder(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("x"), 3<<19)
	put := func(key string, value []byte) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}
	}
	read := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a")}}}
	requests := []proto.Message{
		&pb.RangeRequest{},
		&pb.RangeRequest{Key: []byte("z"), SortOrder: 9},
		&pb.RangeRequest{Key: []byte("a"), Revision: 1e9},
		&pb.RangeRequest{Key: large},
		&pb.PutRequest{},
		&pb.PutRequest{Key: []byte("z"), Value: large},
		&pb.PutRequest{Value: large},
		&pb.PutRequest{Key: []byte("z"), Value: []byte("v"), IgnoreValue: true},
		&pb.PutRequest{Key: []byte("z"), Lease: 1, IgnoreLease: true},
		&pb.PutRequest{Key: []byte("z"), Lease: 999},
		&pb.PutRequest{Key: []byte("b"), Lease: 999},
		&pb.PutRequest{Key: []byte("b"), IgnoreValue: true},
		&pb.DeleteRangeRequest{},
		&pb.DeleteRangeRequest{Key: large},
		&pb.TxnRequest{},
		&pb.TxnRequest{Success: []*pb.RequestOp{{}}},
		&pb.TxnRequest{Success: []*pb.RequestOp{put("z", nil), put("z", nil)}},
		&pb.TxnRequest{Success: []*pb.RequestOp{put("z", nil), put("", nil)}},
		&pb.TxnRequest{Success: []*pb.RequestOp{put("z", large), put("z", nil)}},
		&pb.TxnRequest{Success: []*pb.RequestOp{put("z", large)}},
		&pb.TxnRequest{Success: slices.Repeat([]*pb.RequestOp{read}, 129)},
		&pb.TxnRequest{Success: []*pb.RequestOp{read}, Compare: []*pb.Compare{{Key: []byte("a"), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: large}}}},
		&pb.CompactionRequest{Revision: 1e9},
		&pb.LeaseGrantRequest{TTL: 1e12},
		&pb.LeaseRevokeRequest{ID: 999},
		&pb.LeaseKeepAliveRequest{ID: 999},
		&pb.LeaseTimeToLiveRequest{ID: 999},
		&pb.LeaseTimeToLiveRequest{ID: 999, Keys: true},
		&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("z"), StartRevision: -1}}},
		&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("z"), RangeEnd: []byte("y")}}},
		&pb.MemberRemoveRequest{ID: 1},
		&pb.MoveLeaderRequest{TargetID: 1},
		&pb.DowngradeRequest{},
		&pb.AuthUserAddRequest{},
		&pb.AuthUserAddRequest{Name: string(large)},
		&pb.AuthUserDeleteRequest{},
		&pb.AuthUserDeleteRequest{Name: "root"},
		&pb.AuthUserChangePasswordRequest{Name: "nobody", Password: "x"},
		&pb.AuthUserGetRequest{},
		&pb.AuthUserGetRequest{Name: "nobody"},
		&pb.AuthUserGrantRoleRequest{User: "nobody", Role: "none"},
		&pb.AuthUserRevokeRoleRequest{Name: "nobody", Role: "none"},
		&pb.AuthRoleAddRequest{},
		&pb.AuthRoleGetRequest{},
		&pb.AuthRoleGetRequest{Role: "reader"},
		&pb.AuthRoleDeleteRequest{Role: "none"},
		&pb.AuthRoleGrantPermissionRequest{Name: "none"},
		&pb.AuthRoleGrantPermissionRequest{Name: "none", Perm: &authpb.Permission{}},
		&pb.AuthRoleRevokePermissionRequest{Role: "none"},
		&pb.AuthenticateRequest{},
	}
	eachAuthTransport(t, nil, func(t *testing.T, p *authPair) {
		t.Helper()
		setUpAuth(t, p)
		for _, name := range []string{"", "wrong", "alice 1", "bob 2", "root 0"} {
			for _, request := range requests {
				p.call(t, request, p.etcd.fields()[0], name, false)
			}
		}
	})
}

// Locks and elections are reads, writes and leases to those who may do them.
func TestLocksAndElectionsUnderAuthentication(t *testing.T) {
	t.Parallel()
	eachAuthTransport(t, nil, func(t *testing.T, p *authPair) {
		t.Helper()
		setUpAuth(t, p)
		for i, name := range []string{"", "wrong", "alice 1", "bob 2", "root 0"} {
			// Alice may read and write here, and nobody but root elsewhere.
			for _, place := range []string{"b", "z"} {
				contest := func(suffix string) []byte { return fmt.Append(nil, place, i, suffix) } // none waits for another
				leader := &v3electionpb.LeaderKey{Name: contest(""), Key: contest("/1"), Rev: 1}
				for _, request := range []proto.Message{
					&v3lockpb.LockRequest{Name: contest("")},
					&v3lockpb.UnlockRequest{Key: contest("/1")},
					&v3electionpb.LeaderRequest{Name: contest("leader")},
					&v3electionpb.CampaignRequest{Name: contest("campaign"), Value: []byte("v")},
					&v3electionpb.ProclaimRequest{Leader: leader, Value: []byte("w")},
					&v3electionpb.ResignRequest{Leader: leader},
				} {
					p.call(t, request, p.etcd.fields()[0], name, false)
				}
			}
		}
	})
}
