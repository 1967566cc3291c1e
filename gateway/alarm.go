package gateway

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// alarm is one alarm of one member. etcd accepts any member, and any number for a kind.
type alarm struct {
	kind   pb.AlarmType
	member uint64
}

func (a alarm) message() *pb.AlarmMember { return &pb.AlarmMember{MemberID: a.member, Alarm: a.kind} }

// String is the text in Status.errors: the alarm in etcd's text format, which has a space behind each field
// and leaves zero fields out.
func (a alarm) String() string {
	var text strings.Builder
	if a.member != 0 {
		fmt.Fprintf(&text, "memberID:%d ", a.member)
	}
	if a.kind != pb.AlarmType_NONE {
		fmt.Fprintf(&text, "alarm:%s ", a.kind)
	}
	return text.String()
}

// alarms are those that are active, and what follows from them for writes.
type alarms struct {
	noSpace, corrupt atomic.Bool // an alarm of the kind is active; stored with mu held

	mu     sync.Mutex
	active map[alarm]struct{} // guarded by mu
}

// set activates or deactivates an alarm, and reports whether it is, or was, active.
func (a *alarms) set(which alarm, activate bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, was := a.active[which]
	if activate {
		if a.active == nil {
			a.active = make(map[alarm]struct{})
		}
		a.active[which] = struct{}{}
	} else {
		delete(a.active, which)
	}
	var noSpace, corrupt bool
	for other := range a.active {
		noSpace = noSpace || other.kind == pb.AlarmType_NOSPACE
		corrupt = corrupt || other.kind == pb.AlarmType_CORRUPT
	}
	a.noSpace.Store(noSpace)
	a.corrupt.Store(corrupt)
	return activate || was
}

// list returns the active alarms of a kind, or all for NONE, by kind and member.
func (a *alarms) list(kind pb.AlarmType) []alarm {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []alarm
	for which := range a.active {
		if kind == pb.AlarmType_NONE || kind == which.kind {
			list = append(list, which)
		}
	}
	slices.SortFunc(list, func(a, b alarm) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.member, b.member)) })
	return list
}

// mayWrite fails while the data is said to be corrupt. Its error is a wire error.
func (a *alarms) mayWrite() error {
	if a.corrupt.Load() {
		return rpctypes.ErrGRPCCorrupt
	}
	return nil
}

// mayGrow fails while there is no space, or the data is said to be corrupt. Its error is a wire error.
func (a *alarms) mayGrow() error {
	if err := a.mayWrite(); err != nil {
		return err
	}
	if a.noSpace.Load() {
		return rpctypes.ErrGRPCNoSpace
	}
	return nil
}

// Alarm implements etcdserverpb.Maintenance. As in etcd an alarm that is not active can be deactivated, and
// one that is can be activated. An action that etcd does not know ends its process; here it is an error.
func (s *maintenanceService) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	require := s.requireRoot
	if r.GetAction() == pb.AlarmRequest_GET {
		require = s.requireUser
	}
	if err := require(ctx); err != nil {
		return nil, err
	}
	response := &pb.AlarmResponse{}
	which := alarm{kind: r.GetAlarm(), member: r.GetMemberID()}
	switch r.GetAction() {
	case pb.AlarmRequest_GET:
		for _, active := range s.alarms.list(which.kind) {
			response.Alarms = append(response.Alarms, active.message())
		}
	case pb.AlarmRequest_ACTIVATE:
		if which.kind != pb.AlarmType_NONE {
			s.raise(ctx, which)
			response.Alarms = append(response.Alarms, which.message())
		}
	case pb.AlarmRequest_DEACTIVATE:
		if s.alarms.set(which, false) {
			response.Alarms = append(response.Alarms, which.message())
		}
	default:
		return nil, status.Error(codes.Unknown, "etcdserver: unknown method")
	}
	response.Header = s.header(s.store.Revision())
	return response, nil
}

// raise activates an alarm.
func (s *Server) raise(ctx context.Context, which alarm) {
	s.alarms.set(which, true)
	s.log.LogAttrs(ctx, slog.LevelWarn, "alarm raised", slog.Any("alarm", which.kind), slog.Uint64("member", which.member))
}
