package gateway

import (
	"context"
	"errors"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// leaseService implements etcdserverpb.Lease.
type leaseService struct {
	pb.UnimplementedLeaseServer
	*endpoint
}

// LeaseGrant implements etcdserverpb.Lease.
func (s *leaseService) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if err := s.reserve(ctx, leaseCost); err != nil {
		return nil, err
	}
	if err := s.requireUser(ctx); err != nil {
		return nil, err
	}
	if err := s.alarms.mayGrow(); err != nil {
		return nil, err
	}
	id, ttl, err := s.store.Grant(r.GetID(), r.GetTTL())
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.LeaseGrantResponse{Header: s.header(s.store.Revision()), ID: id, TTL: ttl}, nil
}

// LeaseRevoke implements etcdserverpb.Lease.
func (s *leaseService) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	g, release, err := s.pin(ctx)
	defer release()
	if err != nil {
		return nil, err
	}
	if err := g.user(); err != nil {
		return nil, err
	}
	if err := s.alarms.mayWrite(); err != nil {
		return nil, err
	}
	if err := s.mayUseLease(g, r.GetID(), g.write); err != nil {
		return nil, err
	}
	revision, err := s.store.Revoke(r.GetID())
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.LeaseRevokeResponse{Header: s.header(revision)}, nil
}

// LeaseKeepAlive implements etcdserverpb.Lease. A lease that is not there is answered with TTL 0 and
// does not end the stream.
func (s *leaseService) LeaseKeepAlive(stream grpc.BidiStreamingServer[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]) error {
	ctx := stream.Context()
	requests, ended := make(chan *pb.LeaseKeepAliveRequest), make(chan error, 1)
	// It ends with the stream, which is after the return of this method.
	s.streams.Go(func() {
		for {
			request, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- request:
			case <-ctx.Done():
				ended <- wireError(ctx.Err())
				return
			}
		}
	})
	for {
		select {
		case r := <-requests:
			if err := s.mayRenew(ctx, r.GetID()); err != nil {
				return err
			}
			ttl, revision := s.store.KeepAlive(r.GetID())
			err := stream.Send(&pb.LeaseKeepAliveResponse{Header: s.header(revision), ID: r.GetID(), TTL: ttl})
			if err != nil {
				return err
			}
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-s.stopping:
			return rpctypes.ErrGRPCStopped
		}
	}
}

// mayRenew is for whoever may write all keys of a lease.
func (s *leaseService) mayRenew(ctx context.Context, id int64) error {
	g, err := s.grant(ctx)
	if err != nil {
		return err
	}
	if err := g.user(); err != nil {
		return err
	}
	return s.mayUseLease(g, id, g.write)
}

// LeaseTimeToLive implements etcdserverpb.Lease. A lease that is not there has TTL -1.
func (s *leaseService) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	g, err := s.grant(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.user(); err != nil {
		return nil, err
	}
	response := &pb.LeaseTimeToLiveResponse{Header: s.header(s.store.Revision()), ID: r.GetID(), TTL: -1}
	if status, ok := s.store.TimeToLive(r.GetID(), r.GetKeys()); ok {
		if err := g.leaseKeys(status.Keys, g.read); err != nil {
			return nil, err
		}
		response.TTL, response.GrantedTTL, response.Keys = status.TTL, status.GrantedTTL, status.Keys
	}
	return response, nil
}

// LeaseLeases implements etcdserverpb.Lease. It takes permission to read the keys of all leases.
func (s *leaseService) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	g, err := s.grant(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.user(); err != nil {
		return nil, err
	}
	response := &pb.LeaseLeasesResponse{Header: s.header(s.store.Revision())}
	for _, id := range s.store.Leases() {
		if err := s.mayUseLease(g, id, g.read); err != nil {
			return nil, err
		}
		response.Leases = append(response.Leases, &pb.LeaseStatus{ID: id})
	}
	return response, nil
}
