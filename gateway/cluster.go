package gateway

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// clusterService implements etcdserverpb.Cluster for a cluster of one.
type clusterService struct {
	pb.UnimplementedClusterServer
	*endpoint
}

// MemberList implements etcdserverpb.Cluster.
func (s *clusterService) MemberList(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	return &pb.MemberListResponse{
		// As in etcd there is only a revision missing.
		Header: s.header(0),
		Members: []*pb.Member{{
			ID: s.cfg.MemberID, Name: s.cfg.Name, ClientURLs: s.cfg.ClientURLs,
		}},
	}, nil
}

// authService implements etcdserverpb.Auth for a server without users.
type authService struct {
	pb.UnimplementedAuthServer
	*endpoint
}

// Authenticate implements etcdserverpb.Auth.
func (s *authService) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return nil, rpctypes.ErrGRPCAuthNotEnabled
}

// AuthStatus implements etcdserverpb.Auth.
func (s *authService) AuthStatus(context.Context, *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	return &pb.AuthStatusResponse{Header: s.header(s.store.Revision()), AuthRevision: 1}, nil
}
