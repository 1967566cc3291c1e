package gateway

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"meshbridge/gateway/snapshot"
)

// snapshotChunkBytes is how much of a snapshot goes into one message, as in etcd.
const snapshotChunkBytes = 32 << 10

// Snapshot implements etcdserverpb.Maintenance. The snapshot is made in a temporary file, so that neither
// writers wait nor memory grows while the client reads it.
func (s *maintenanceService) Snapshot(_ *pb.SnapshotRequest, stream grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	ctx := stream.Context()
	if err := s.requireRoot(ctx); err != nil {
		return err
	}
	file, err := s.makeSnapshot(ctx)
	if err != nil {
		return wireError(err)
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	if err != nil {
		return wireError(err)
	}
	version, _ := s.downgrade.version()
	hash := sha256.New()
	chunk := make([]byte, snapshotChunkBytes)
	for remaining := info.Size(); remaining > 0; {
		n, err := io.ReadFull(file, chunk[:min(remaining, snapshotChunkBytes)])
		if err != nil {
			return wireError(fmt.Errorf("reading the snapshot: %w", err))
		}
		remaining -= int64(n)
		_, _ = hash.Write(chunk[:n]) // never fails
		response := &pb.SnapshotResponse{RemainingBytes: uint64(remaining), Blob: chunk[:n], Version: version}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
	// What follows the database is its checksum.
	return stream.Send(&pb.SnapshotResponse{Blob: hash.Sum(nil), Version: version})
}

// makeSnapshot returns a snapshot that goes away when it is closed. One is made at a time.
func (s *Server) makeSnapshot(ctx context.Context) (file *os.File, err error) {
	select {
	case s.snapshots <- struct{}{}:
		defer func() { <-s.snapshots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	dir, err := os.MkdirTemp(s.cfg.SnapshotDir, "meshbridge-snapshot-")
	if err != nil {
		return nil, fmt.Errorf("making a snapshot: %w", err)
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); removeErr != nil {
			s.log.LogAttrs(ctx, slog.LevelWarn, "snapshot left behind", slog.Any("error", removeErr))
		}
	}()
	version, _ := s.downgrade.version()
	contents := &snapshot.Contents{
		Store: s.store.Export(), Auth: s.auth.State(), Members: s.members(),
		ClusterVersion: version, StorageVersion: version, Term: raftTerm,
	}
	for _, active := range s.alarms.list(pb.AlarmType_NONE) {
		contents.Alarms = append(contents.Alarms, active.message())
	}
	path := filepath.Join(dir, "db")
	if err := snapshot.Write(ctx, path, contents); err != nil {
		return nil, fmt.Errorf("making a snapshot: %w", err)
	}
	// Opened, it outlives its name.
	return os.Open(path)
}
