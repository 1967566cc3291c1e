package gateway

import (
	"context"
	"encoding/binary"
	"hash/crc32"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"meshbridge/store"
)

// minDBSize is the size of an empty etcd database; clients take zero for a member that is not up.
const minDBSize = 20 << 10

// maintenanceService implements etcdserverpb.Maintenance.
type maintenanceService struct {
	pb.UnimplementedMaintenanceServer
	*endpoint
}

// Status implements etcdserverpb.Maintenance. Sizes are the store's memory; there is no log, so the
// revision stands for its index.
func (s *maintenanceService) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	stats := s.store.Stats()
	size := minDBSize + stats.Bytes
	return &pb.StatusResponse{
		Header:           s.header(stats.Revision),
		Version:          serverVersion,
		StorageVersion:   storageVersion,
		DbSize:           size,
		DbSizeInUse:      size,
		Leader:           s.cfg.MemberID,
		RaftIndex:        uint64(stats.Revision),
		RaftAppliedIndex: uint64(stats.Revision),
		RaftTerm:         raftTerm,
	}, nil
}

// Alarm implements etcdserverpb.Maintenance. There never is an alarm, so none can be listed or
// disarmed; raising one is not served.
func (s *maintenanceService) Alarm(_ context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if r.GetAction() == pb.AlarmRequest_ACTIVATE {
		return nil, status.Error(codes.Unimplemented, "raising alarms is not served")
	}
	return &pb.AlarmResponse{Header: s.header(s.store.Revision())}, nil
}

// Defragment implements etcdserverpb.Maintenance. Memory has no fragments to be asked about.
func (s *maintenanceService) Defragment(context.Context, *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	return &pb.DefragmentResponse{}, nil
}

// Hash implements etcdserverpb.Maintenance. etcd hashes its database file; here it is the hash of the
// history.
func (s *maintenanceService) Hash(context.Context, *pb.HashRequest) (*pb.HashResponse, error) {
	history, err := s.store.History(0)
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.HashResponse{Header: s.header(history.Current), Hash: hashHistory(history)}, nil
}

// HashKV implements etcdserverpb.Maintenance. The same history has the same hash as in etcd 3.6.
func (s *maintenanceService) HashKV(_ context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
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

// MoveLeader implements etcdserverpb.Maintenance. There is nobody to move to.
func (s *maintenanceService) MoveLeader(context.Context, *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	return nil, rpctypes.ErrGRPCBadLeaderTransferee
}
