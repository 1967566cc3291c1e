package gateway

import (
	"context"
	"encoding/binary"
	"hash/crc32"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"meshbridge/store"
)

// maintenanceService implements etcdserverpb.Maintenance.
type maintenanceService struct {
	pb.UnimplementedMaintenanceServer
	*endpoint
}

// Status implements etcdserverpb.Maintenance. Sizes are the store's memory; there is no log, so the
// revision stands for its index.
func (s *maintenanceService) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	if err := s.requireUser(ctx); err != nil {
		return nil, err
	}
	revision, size := s.store.Revision(), s.dbSize()
	version, downgrading := s.downgrade.version()
	response := &pb.StatusResponse{
		Header:           s.header(revision),
		Version:          serverVersion,
		StorageVersion:   version,
		DbSize:           size,
		DbSizeInUse:      size,
		DbSizeQuota:      s.cfg.QuotaBytes,
		Leader:           s.cfg.MemberID,
		RaftIndex:        uint64(revision),
		RaftAppliedIndex: uint64(revision),
		RaftTerm:         raftTerm,
		DowngradeInfo:    &pb.DowngradeInfo{Enabled: downgrading},
	}
	if downgrading {
		response.DowngradeInfo.TargetVersion = version
	}
	for _, active := range s.alarms.list(pb.AlarmType_NONE) {
		response.Errors = append(response.Errors, active.String())
	}
	return response, nil
}

// Defragment implements etcdserverpb.Maintenance. Memory has no fragments to be asked about.
func (s *maintenanceService) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	return &pb.DefragmentResponse{}, nil
}

// Hash implements etcdserverpb.Maintenance. etcd hashes its database file; here it is the hash of the
// history.
func (s *maintenanceService) Hash(ctx context.Context, _ *pb.HashRequest) (*pb.HashResponse, error) {
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	history, err := s.store.History(0)
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.HashResponse{Header: s.header(history.Current), Hash: hashHistory(history)}, nil
}

// HashKV implements etcdserverpb.Maintenance. The same history has the same hash as in etcd 3.6.
func (s *maintenanceService) HashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	history, err := s.store.History(r.GetRevision())
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.HashKVResponse{
		Header:          s.header(history.Current),
		Hash:            hashHistory(history),
		CompactRevision: history.CompactRevision,
		HashRevision:    history.Revision,
	}, nil
}

// hashHistory is etcd's hash: over the name of the bucket, then each change's key in the bucket and
// its value. A tombstone's key has a mark.
func hashHistory(history store.History) uint32 {
	hash := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	write := func(p []byte) { _, _ = hash.Write(p) } // never fails
	write([]byte("key"))
	var key, value []byte
	for _, c := range history.Changes {
		key = binary.BigEndian.AppendUint64(key[:0], uint64(c.Revision))
		key = append(key, '_')
		key = binary.BigEndian.AppendUint64(key, uint64(c.Sub))
		if c.Delete {
			key = append(key, 't')
			value = appendProtoBytes(value[:0], fieldKVKey, c.KV.Key)
		} else {
			value = appendProtoKeyValueBody(value[:0], c.KV)
		}
		write(key)
		write(value)
	}
	return hash.Sum32()
}

// MoveLeader implements etcdserverpb.Maintenance. There is nobody to move to but the leader itself.
func (s *maintenanceService) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	if r.GetTargetID() != s.cfg.MemberID {
		return nil, rpctypes.ErrGRPCBadLeaderTransferee
	}
	return &pb.MoveLeaderResponse{}, nil
}
