package gateway

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
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
