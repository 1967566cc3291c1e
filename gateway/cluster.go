package gateway

import (
	"context"
	"net"
	"net/url"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// clusterService implements etcdserverpb.Cluster for a cluster of one, which neither grows nor shrinks: a
// member that is to be added is refused with what etcd says when a cluster cannot take one more at the
// moment.
type clusterService struct {
	pb.UnimplementedClusterServer
	*endpoint
}

// members are those of the cluster.
func (s *Server) members() []*pb.Member {
	m := &pb.Member{ID: s.cfg.MemberID, Name: s.cfg.Name, ClientURLs: s.cfg.ClientURLs}
	if urls := s.peerURLs.Load(); urls != nil {
		m.PeerURLs = *urls
	}
	return []*pb.Member{m}
}

// MemberList implements etcdserverpb.Cluster.
func (s *clusterService) MemberList(ctx context.Context, _ *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if err := s.requireUser(ctx); err != nil {
		return nil, err
	}
	// As in etcd there is only a revision missing, in all responses of this service.
	return &pb.MemberListResponse{Header: s.header(0), Members: s.members()}, nil
}

// MemberAdd implements etcdserverpb.Cluster.
func (s *clusterService) MemberAdd(ctx context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	if !arePeerURLs(r.GetPeerURLs()) {
		return nil, rpctypes.ErrGRPCMemberBadURLs
	}
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	if r.GetIsLearner() {
		return nil, rpctypes.ErrGRPCTooManyLearners
	}
	return nil, errNotEnoughStarted()
}

// MemberRemove implements etcdserverpb.Cluster.
func (s *clusterService) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	if err := s.findMember(ctx, r.GetID()); err != nil {
		return nil, err
	}
	return nil, errNotEnoughStarted()
}

// MemberUpdate implements etcdserverpb.Cluster. Peers' addresses are shown and have no other effect.
func (s *clusterService) MemberUpdate(ctx context.Context, r *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	if err := s.findMember(ctx, r.GetID()); err != nil {
		return nil, err
	}
	urls := slices.Clone(r.GetPeerURLs())
	s.peerURLs.Store(&urls)
	return &pb.MemberUpdateResponse{Header: s.header(0), Members: s.members()}, nil
}

// MemberPromote implements etcdserverpb.Cluster.
func (s *clusterService) MemberPromote(ctx context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	if err := s.findMember(ctx, r.GetID()); err != nil {
		return nil, err
	}
	return nil, rpctypes.ErrGRPCMemberNotLearner
}

// findMember fails unless whoever asks may change members and there is one with the id.
func (s *clusterService) findMember(ctx context.Context, id uint64) error {
	if err := s.requireRoot(ctx); err != nil {
		return err
	}
	if id != s.cfg.MemberID {
		return rpctypes.ErrGRPCMemberNotFound
	}
	return nil
}

// errNotEnoughStarted has the text of rpctypes.ErrGRPCMemberNotEnoughStarted and the code that etcd 3.6
// really sends.
func errNotEnoughStarted() error {
	return status.Error(codes.Unknown, rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberNotEnoughStarted))
}

// arePeerURLs tells whether etcd takes them for a member's addresses: a scheme, a host and a port.
func arePeerURLs(urls []string) bool {
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" || u.Path != "" {
			return false
		}
		switch u.Scheme {
		case "unix", "unixs":
		case "http", "https":
			if _, _, err := net.SplitHostPort(u.Host); err != nil {
				return false
			}
		default:
			return false
		}
	}
	return len(urls) > 0
}
