package etcd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// route is where a request goes.
type route struct {
	method, path string
	response     proto.Message // empty
	stream       bool          // the first response is the answer
	failureOnly  bool          // other answers say what the servers may choose
}

// routeOf knows the requests of the tests of authentication.
func routeOf(request proto.Message) route {
	switch request.(type) {
	case *pb.RangeRequest:
		return route{method: pb.KV_Range_FullMethodName, path: "/v3/kv/range", response: &pb.RangeResponse{}}
	case *pb.PutRequest:
		return route{method: pb.KV_Put_FullMethodName, path: "/v3/kv/put", response: &pb.PutResponse{}}
	case *pb.DeleteRangeRequest:
		return route{method: pb.KV_DeleteRange_FullMethodName, path: "/v3/kv/deleterange", response: &pb.DeleteRangeResponse{}}
	case *pb.TxnRequest:
		return route{method: pb.KV_Txn_FullMethodName, path: "/v3/kv/txn", response: &pb.TxnResponse{}}
	case *pb.CompactionRequest:
		return route{method: pb.KV_Compact_FullMethodName, path: "/v3/kv/compaction", response: &pb.CompactionResponse{}}
	case *pb.WatchRequest:
		return route{method: pb.Watch_Watch_FullMethodName, path: "/v3/watch", response: &pb.WatchResponse{}, stream: true}
	case *pb.LeaseGrantRequest:
		return route{method: pb.Lease_LeaseGrant_FullMethodName, path: "/v3/lease/grant", response: &pb.LeaseGrantResponse{}}
	case *pb.LeaseRevokeRequest:
		return route{method: pb.Lease_LeaseRevoke_FullMethodName, path: "/v3/lease/revoke", response: &pb.LeaseRevokeResponse{}}
	case *pb.LeaseKeepAliveRequest:
		return route{method: pb.Lease_LeaseKeepAlive_FullMethodName, path: "/v3/lease/keepalive", response: &pb.LeaseKeepAliveResponse{}, stream: true}
	case *pb.LeaseTimeToLiveRequest:
		return route{method: pb.Lease_LeaseTimeToLive_FullMethodName, path: "/v3/lease/timetolive", response: &pb.LeaseTimeToLiveResponse{}}
	case *pb.LeaseLeasesRequest:
		return route{method: pb.Lease_LeaseLeases_FullMethodName, path: "/v3/lease/leases", response: &pb.LeaseLeasesResponse{}}
	case *pb.MemberListRequest:
		return route{method: pb.Cluster_MemberList_FullMethodName, path: "/v3/cluster/member/list", response: &pb.MemberListResponse{}, failureOnly: true}
	case *pb.MemberRemoveRequest:
		return route{method: pb.Cluster_MemberRemove_FullMethodName, path: "/v3/cluster/member/remove", response: &pb.MemberRemoveResponse{}}
	case *pb.AlarmRequest:
		return route{method: pb.Maintenance_Alarm_FullMethodName, path: "/v3/maintenance/alarm", response: &pb.AlarmResponse{}, failureOnly: true}
	case *pb.StatusRequest:
		return route{method: pb.Maintenance_Status_FullMethodName, path: "/v3/maintenance/status", response: &pb.StatusResponse{}, failureOnly: true}
	case *pb.DefragmentRequest:
		return route{method: pb.Maintenance_Defragment_FullMethodName, path: "/v3/maintenance/defragment", response: &pb.DefragmentResponse{}}
	case *pb.HashRequest:
		return route{method: pb.Maintenance_Hash_FullMethodName, path: "/v3/maintenance/hash", response: &pb.HashResponse{}, failureOnly: true}
	case *pb.HashKVRequest:
		return route{method: pb.Maintenance_HashKV_FullMethodName, path: "/v3/maintenance/hashkv", response: &pb.HashKVResponse{}}
	case *pb.SnapshotRequest:
		return route{method: pb.Maintenance_Snapshot_FullMethodName, path: "/v3/maintenance/snapshot", response: &pb.SnapshotResponse{}, stream: true, failureOnly: true}
	case *pb.MoveLeaderRequest:
		return route{method: pb.Maintenance_MoveLeader_FullMethodName, path: "/v3/maintenance/transfer-leadership", response: &pb.MoveLeaderResponse{}}
	case *pb.DowngradeRequest:
		return route{method: pb.Maintenance_Downgrade_FullMethodName, path: "/v3/maintenance/downgrade", response: &pb.DowngradeResponse{}, failureOnly: true}
	case *v3lockpb.LockRequest:
		return route{method: v3lockpb.Lock_Lock_FullMethodName, path: "/v3/lock/lock", response: &v3lockpb.LockResponse{}, failureOnly: true}
	case *v3lockpb.UnlockRequest:
		return route{method: v3lockpb.Lock_Unlock_FullMethodName, path: "/v3/lock/unlock", response: &v3lockpb.UnlockResponse{}, failureOnly: true}
	case *v3electionpb.CampaignRequest:
		return route{method: v3electionpb.Election_Campaign_FullMethodName, path: "/v3/election/campaign", response: &v3electionpb.CampaignResponse{}, failureOnly: true}
	case *v3electionpb.LeaderRequest:
		return route{method: v3electionpb.Election_Leader_FullMethodName, path: "/v3/election/leader", response: &v3electionpb.LeaderResponse{}, failureOnly: true}
	case *v3electionpb.ProclaimRequest:
		return route{method: v3electionpb.Election_Proclaim_FullMethodName, path: "/v3/election/proclaim", response: &v3electionpb.ProclaimResponse{}, failureOnly: true}
	case *v3electionpb.ResignRequest:
		return route{method: v3electionpb.Election_Resign_FullMethodName, path: "/v3/election/resign", response: &v3electionpb.ResignResponse{}, failureOnly: true}
	case *pb.AuthenticateRequest:
		return route{method: pb.Auth_Authenticate_FullMethodName, path: "/v3/auth/authenticate", response: &pb.AuthenticateResponse{}}
	case *pb.AuthEnableRequest:
		return route{method: pb.Auth_AuthEnable_FullMethodName, path: "/v3/auth/enable", response: &pb.AuthEnableResponse{}}
	case *pb.AuthDisableRequest:
		return route{method: pb.Auth_AuthDisable_FullMethodName, path: "/v3/auth/disable", response: &pb.AuthDisableResponse{}}
	case *pb.AuthStatusRequest:
		return route{method: pb.Auth_AuthStatus_FullMethodName, path: "/v3/auth/status", response: &pb.AuthStatusResponse{}}
	case *pb.AuthUserAddRequest:
		return route{method: pb.Auth_UserAdd_FullMethodName, path: "/v3/auth/user/add", response: &pb.AuthUserAddResponse{}}
	case *pb.AuthUserGetRequest:
		return route{method: pb.Auth_UserGet_FullMethodName, path: "/v3/auth/user/get", response: &pb.AuthUserGetResponse{}}
	case *pb.AuthUserListRequest:
		return route{method: pb.Auth_UserList_FullMethodName, path: "/v3/auth/user/list", response: &pb.AuthUserListResponse{}}
	case *pb.AuthUserDeleteRequest:
		return route{method: pb.Auth_UserDelete_FullMethodName, path: "/v3/auth/user/delete", response: &pb.AuthUserDeleteResponse{}}
	case *pb.AuthUserChangePasswordRequest:
		return route{method: pb.Auth_UserChangePassword_FullMethodName, path: "/v3/auth/user/changepw", response: &pb.AuthUserChangePasswordResponse{}}
	case *pb.AuthUserGrantRoleRequest:
		return route{method: pb.Auth_UserGrantRole_FullMethodName, path: "/v3/auth/user/grant", response: &pb.AuthUserGrantRoleResponse{}}
	case *pb.AuthUserRevokeRoleRequest:
		return route{method: pb.Auth_UserRevokeRole_FullMethodName, path: "/v3/auth/user/revoke", response: &pb.AuthUserRevokeRoleResponse{}}
	case *pb.AuthRoleAddRequest:
		return route{method: pb.Auth_RoleAdd_FullMethodName, path: "/v3/auth/role/add", response: &pb.AuthRoleAddResponse{}}
	case *pb.AuthRoleGetRequest:
		return route{method: pb.Auth_RoleGet_FullMethodName, path: "/v3/auth/role/get", response: &pb.AuthRoleGetResponse{}}
	case *pb.AuthRoleListRequest:
		return route{method: pb.Auth_RoleList_FullMethodName, path: "/v3/auth/role/list", response: &pb.AuthRoleListResponse{}}
	case *pb.AuthRoleDeleteRequest:
		return route{method: pb.Auth_RoleDelete_FullMethodName, path: "/v3/auth/role/delete", response: &pb.AuthRoleDeleteResponse{}}
	case *pb.AuthRoleGrantPermissionRequest:
		return route{method: pb.Auth_RoleGrantPermission_FullMethodName, path: "/v3/auth/role/grant", response: &pb.AuthRoleGrantPermissionResponse{}}
	case *pb.AuthRoleRevokePermissionRequest:
		return route{method: pb.Auth_RoleRevokePermission_FullMethodName, path: "/v3/auth/role/revoke", response: &pb.AuthRoleRevokePermissionResponse{}}
	}
	panic(fmt.Sprintf("no route for %T", request))
}

// field is where a request has its token; "" is nowhere.
type field struct{ name, value string }

// authCaller makes requests with or without a token.
type authCaller interface {
	call(t *testing.T, request proto.Message, token field) answer
	// fields are the names that a token can have.
	fields() []string
}

// grpcAuthCaller is an authCaller over gRPC.
type grpcAuthCaller struct{ conn grpc.ClientConnInterface }

// newGRPCAuthCaller has a connection of its own: etcd's client would try again
// what is refused.
func newGRPCAuthCaller(t *testing.T, s server) grpcAuthCaller {
	t.Helper()
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return grpcAuthCaller{conn}
}

func (c grpcAuthCaller) fields() []string { return []string{"token", "authorization"} }

func (c grpcAuthCaller) call(t *testing.T, request proto.Message, token field) answer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if token.name != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, token.name, token.value)
	}
	to := routeOf(request)
	response := to.response
	var err error
	if to.stream {
		err = c.first(ctx, to, request)
	} else {
		err = c.conn.Invoke(ctx, to.method, request, response)
	}
	if err != nil {
		return answer{failure: status.Convert(err).Code().String() + ": " + status.Convert(err).Message()}
	}
	if to.failureOnly {
		return answer{}
	}
	withoutChoices(response)
	return answer{response: response}
}

// first makes a call of a stream and reads the first response.
func (c grpcAuthCaller) first(ctx context.Context, to route, request proto.Message) error {
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, to.method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil {
		return err
	}
	if _, ok := request.(*pb.SnapshotRequest); ok {
		if err := stream.CloseSend(); err != nil {
			return err
		}
	}
	return stream.RecvMsg(to.response)
}

// httpAuthCaller is an authCaller over HTTP.
type httpAuthCaller struct {
	server server
	client *http.Client
}

func newHTTPAuthCaller(t *testing.T, s server) httpAuthCaller {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return httpAuthCaller{s, &http.Client{Transport: transport, Timeout: patience}}
}

// fields has one that is not looked at.
func (c httpAuthCaller) fields() []string {
	return []string{"Authorization", "Grpc-Metadata-Token", "Token"}
}

func (c httpAuthCaller) call(t *testing.T, request proto.Message, token field) answer {
	t.Helper()
	to := routeOf(request)
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.server.address+to.path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if token.name != "" {
		r.Header.Set(token.name, token.value)
	}
	response, err := c.client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", c.server.name, to.path, err)
	}
	defer response.Body.Close()
	var body json.RawMessage
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		rest, _ := io.ReadAll(response.Body)
		t.Fatalf("%s %s %s: %v in %q", c.server.name, to.path, text, err, rest)
	}
	if to.stream {
		var message struct{ Error, Result json.RawMessage }
		if err := json.Unmarshal(body, &message); err != nil {
			t.Fatalf("%s: %v", c.server.name, err)
		}
		if message.Error != nil {
			return answer{failure: fmt.Sprintf("%d %s", response.StatusCode, asEtcd(t, body, streamErrorOfOldGateway))}
		}
		body = message.Result
	}
	if response.StatusCode != http.StatusOK {
		return answer{failure: fmt.Sprintf("%d %s", response.StatusCode, asEtcd(t, body, errorOfOldGateway))}
	}
	if to.failureOnly {
		return answer{}
	}
	if err := protojson.Unmarshal(body, to.response); err != nil {
		t.Fatalf("%s %s: %v in %s", c.server.name, to.path, err, body)
	}
	withoutChoices(to.response)
	return answer{response: to.response}
}

// asEtcd gives a JSON text without the spaces that etcd adds at random and
// without an intended difference.
func asEtcd(t *testing.T, text []byte, accepted difference) string {
	t.Helper()
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		t.Fatal(err)
	}
	return accepted.asEtcd(compact.String())
}

// tokens are the tokens of one server that a test has had, by names that mean
// the same on both servers.
type tokens map[string]string

// field puts the token of a name in a field.
func (k tokens) field(in, name string, bearer bool) field {
	if name == "" {
		return field{}
	}
	value, ok := k[name]
	if !ok {
		value = name // no token at all
	}
	if bearer {
		value = "Bearer " + value
	}
	return field{in, value}
}

// take remembers the token in an answer under a name and takes it out.
func (k tokens) take(name string, a answer) {
	if r, ok := a.response.(*pb.AuthenticateResponse); ok {
		k[name], r.Token = r.GetToken(), ""
	}
}

// names are those of the tokens, sorted.
func (k tokens) names() []string {
	names := make([]string, 0, len(k))
	for name := range k {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// describe is a request as a failure shows it.
func describe(request proto.Message, token field, name string) string {
	return fmt.Sprintf("%T %.300s as %q in %q", request, fmt.Sprint(request), name, token.name)
}
