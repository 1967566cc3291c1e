package gateway

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The versions that the server says it has. Clients choose features by them: 3.6 has progress
// requests that can be relied on, and APISIX wants three numbers and a cluster of 3.4.0 at least.
const (
	serverVersion  = "3.6.16"
	clusterVersion = "3.6.0"
)

// downgrade is the preparation of a cluster for servers of the minor version before. In etcd it takes
// seconds to lower the versions of cluster and storage, and to raise them when it is cancelled; here
// there is nothing to convert.
type downgrade struct {
	mu     sync.Mutex
	target string // guarded by mu; empty is none
}

// version returns that of the cluster, which is that of its storage too, and whether it is being lowered.
func (d *downgrade) version() (version string, enabled bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.target != "" {
		return d.target, true
	}
	return clusterVersion, false
}

// Downgrade implements etcdserverpb.Maintenance. The version in a response is that of the cluster before.
func (s *maintenanceService) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	d := &s.downgrade
	d.mu.Lock()
	defer d.mu.Unlock()
	current := d.target
	if current == "" {
		current = clusterVersion
	}
	switch r.GetAction() {
	case pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE:
		target, err := parseClusterVersion(r.GetVersion())
		switch {
		case err != nil:
			return nil, err
		case target != minorBefore(current):
			return nil, rpctypes.ErrGRPCInvalidDowngradeTargetVersion
		case d.target != "":
			return nil, rpctypes.ErrGRPCDowngradeInProcess
		}
		if r.GetAction() == pb.DowngradeRequest_ENABLE {
			d.target = target
		}
	case pb.DowngradeRequest_CANCEL:
		d.target = ""
	default:
		return nil, status.Error(codes.Unknown, "etcdserver: unknown method")
	}
	return &pb.DowngradeResponse{
		Header: s.header(s.store.Revision()), Version: strings.TrimSuffix(current, ".0"),
	}, nil
}

// parseClusterVersion returns the version with its patch set to 0, which may have been left out.
func parseClusterVersion(version string) (string, error) {
	numbers := regexp.MustCompile(`^(\d{1,18})\.(\d{1,18})(\.\d{1,18}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?)?$`).FindStringSubmatch(version)
	if numbers == nil {
		return "", rpctypes.ErrGRPCWrongDowngradeVersionFormat
	}
	return fmt.Sprintf("%s.%s.0", numbers[1], numbers[2]), nil
}

// minorBefore is the version that a cluster can be downgraded to.
func minorBefore(version string) string {
	numbers := strings.Split(version, ".")
	minor, _ := strconv.Atoi(numbers[1]) // it is a constant of ours, or was parsed
	return fmt.Sprintf("%s.%d.0", numbers[0], minor-1)
}
