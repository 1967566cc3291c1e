package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"meshbridge/gateway"
	"meshbridge/gateway/snapshot"
	"meshbridge/store"
)

// getPath returns the status and the body of a path.
func getPath(t *testing.T, s *server, path string) (code int, body string) {
	t.Helper()
	r, err := httpClient(t).Get(s.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(data)
}

// What a client saves, checksum included, is what a server begins with, and no file is left behind.
func TestSnapshot(t *testing.T) {
	dir := t.TempDir()
	s := start(t, gateway.Config{SnapshotDir: dir, Alarms: []*pb.AlarmMember{{MemberID: 5, Alarm: pb.AlarmType_CORRUPT}}})
	c := etcdClient(t, s)
	ctx := within(t)
	put(t, s.store, "/large", strings.Repeat("x", 100_000))
	put(t, s.store, "/a", "1")
	if _, err := c.UserAdd(ctx, "somebody", "secret"); err != nil {
		t.Fatal(err)
	}
	r, err := c.SnapshotWithVersion(ctx)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r.Snapshot)
	if err != nil || r.Version != "3.6.0" {
		t.Fatalf("version %s, %v", r.Version, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	path := filepath.Join(t.TempDir(), "saved.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	err = snapshot.Read(path, func(saved *snapshot.Contents) error {
		if len(saved.Auth.Users) != 1 || len(saved.Alarms) != 1 || len(saved.Members) != 1 {
			t.Errorf("users %v, alarms %v, members %v", saved.Auth.Users, saved.Alarms, saved.Members)
		}
		restored, err := store.Restore(store.Config{}, saved.Store)
		if err != nil {
			return err
		}
		defer restored.Close()
		other := etcdClient(t, start(t, gateway.Config{Store: restored, Alarms: saved.Alarms}))
		want, err := c.HashKV(ctx, s.addr, 0)
		if err != nil {
			return err
		}
		got, err := other.HashKV(ctx, other.Endpoints()[0], 0)
		if err != nil {
			return err
		}
		if got.Hash != want.Hash || got.Header.GetRevision() != 3 {
			t.Errorf("%v, want %v", got, want)
		}
		if _, err := other.Put(ctx, "/a", "2"); !errors.Is(err, rpctypes.ErrCorrupt) {
			t.Errorf("put under the restored alarm: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A snapshot that cannot be made is an error, and the next one is not held up by it.
func TestSnapshotWithoutADisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "absent")
	s := start(t, gateway.Config{SnapshotDir: dir})
	c := pb.NewMaintenanceClient(etcdClient(t, s).ActiveConnection())
	for range 2 {
		r, err := c.Snapshot(within(t), &pb.SnapshotRequest{})
		if err == nil {
			_, err = r.Recv()
		}
		if status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "absent") {
			t.Error(err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t))
	r, err := c.Snapshot(ctx, &pb.SnapshotRequest{})
	if err == nil {
		_, err = r.Recv()
	}
	if err != nil {
		t.Error(err)
	}
	cancel()
	code, body := post(t, s, "/v3/maintenance/snapshot", "{}")
	if code != http.StatusOK || !strings.Contains(body, `"version":"3.6.0"`) {
		t.Errorf("%d %.200s", code, body)
	}
}

// A full store takes deletes and compactions, and puts again once there is room and the alarm is disarmed.
func TestQuota(t *testing.T) {
	s := start(t, gateway.Config{QuotaBytes: 100_000})
	c := etcdClient(t, s)
	ctx := within(t)
	if _, err := c.Put(ctx, "/small", "1"); err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", 60_000)
	if _, err := c.Put(ctx, "/large", large); err != nil {
		t.Fatal(err)
	}
	full := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, rpctypes.ErrNoSpace) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version("/small"), "=", 7)).
		Then(clientv3.OpGet("/small")).Else(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("/more", large)}, nil)).Commit()
	full("transaction", err)
	// The alarm holds, also for what would fit.
	_, err = c.Put(ctx, "/small", "2")
	full("put", err)
	_, err = c.Grant(ctx, 60)
	full("lease", err)
	status, err := c.Status(ctx, s.addr)
	if err != nil || status.DbSizeQuota != 100_000 || len(status.Errors) != 1 || !strings.Contains(status.Errors[0], "alarm:NOSPACE ") {
		t.Errorf("%v, %v", status, err)
	}
	if code, body := getPath(t, s, "/health"); code != http.StatusServiceUnavailable || body != `{"health":"false","reason":"ALARM NOSPACE"}`+"\n" {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := getPath(t, s, "/health?exclude=NOSPACE"); code != http.StatusOK {
		t.Errorf("the alarm excluded: %d", code)
	}
	if code, _ := getPath(t, s, "/readyz"); code != http.StatusOK {
		t.Errorf("a full server can be read: %d", code)
	}
	if _, err := c.Delete(ctx, "/large"); err != nil {
		t.Error(err)
	}
	if _, err := c.Txn(ctx).Then(clientv3.OpDelete("/absent")).Commit(); err != nil {
		t.Error(err)
	}
	if _, err := c.Compact(ctx, s.store.Revision()); err != nil {
		t.Error(err)
	}
	_, err = c.Put(ctx, "/small", "2")
	full("put before the alarm is disarmed", err)
	disarmed, err := c.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	if err != nil || len(disarmed.Alarms) != 1 {
		t.Errorf("%v, %v", disarmed, err)
	}
	if _, err := c.Put(ctx, "/small", "2"); err != nil {
		t.Error(err)
	}
	// A put that does not fit is refused before anything is looked at.
	_, err = c.Put(ctx, "", large+large)
	full("put without a key", err)
	without := etcdClient(t, start(t, gateway.Config{Store: s.store, QuotaBytes: -1}))
	if _, err := without.Put(ctx, "/large", large); err != nil {
		t.Errorf("without a quota: %v", err)
	}
}

func TestAlarms(t *testing.T) {
	s := start(t, gateway.Config{})
	ctx := within(t)
	c := etcdClient(t, s)
	alarms := pb.NewMaintenanceClient(c.ActiveConnection())
	call := func(action pb.AlarmRequest_AlarmAction, kind pb.AlarmType, member uint64) string {
		t.Helper()
		r, err := alarms.Alarm(ctx, &pb.AlarmRequest{Action: action, Alarm: kind, MemberID: member})
		if err != nil {
			return err.Error()
		}
		var list []string
		for _, a := range r.GetAlarms() {
			list = append(list, a.GetAlarm().String())
		}
		return strings.Join(list, " ")
	}
	for i, step := range []struct {
		action pb.AlarmRequest_AlarmAction
		kind   pb.AlarmType
		member uint64
		want   string
	}{
		{pb.AlarmRequest_GET, pb.AlarmType_NONE, 0, ""},
		{pb.AlarmRequest_ACTIVATE, pb.AlarmType_NONE, 1, ""},
		{pb.AlarmRequest_ACTIVATE, pb.AlarmType_CORRUPT, 0, "CORRUPT"},
		{pb.AlarmRequest_ACTIVATE, pb.AlarmType_CORRUPT, 0, "CORRUPT"},
		{pb.AlarmRequest_ACTIVATE, 9, 1, "9"},
		{pb.AlarmRequest_ACTIVATE, pb.AlarmType_NOSPACE, 2, "NOSPACE"},
		{pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NOSPACE, 1, ""},
		{pb.AlarmRequest_GET, pb.AlarmType_NONE, 0, "NOSPACE CORRUPT 9"},
		{pb.AlarmRequest_GET, pb.AlarmType_CORRUPT, 0, "CORRUPT"},
		// It ends the process of an etcd 3.6, and of every other member.
		{7, pb.AlarmType_NONE, 0, "rpc error: code = Unknown desc = etcdserver: unknown method"},
	} {
		if got := call(step.action, step.kind, step.member); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	if status, err := c.Status(ctx, s.addr); err != nil || !cmp.Equal(status.Errors, []string{"memberID:2 alarm:NOSPACE ", "alarm:CORRUPT ", "memberID:1 alarm:9 "}) {
		t.Errorf("%q, %v", status.Errors, err)
	}
	lease := clientv3.LeaseID(1)
	for name, do := range map[string]func() error{
		"put":         func() error { _, err := c.Put(ctx, "/a", ""); return err },
		"delete":      func() error { _, err := c.Delete(ctx, "/a"); return err },
		"transaction": func() error { _, err := c.Txn(ctx).Then(clientv3.OpDelete("/a")).Commit(); return err },
		"compact":     func() error { _, err := c.Compact(ctx, 1); return err },
		"grant":       func() error { _, err := c.Grant(ctx, 60); return err },
		"revoke":      func() error { _, err := c.Revoke(ctx, lease); return err },
	} {
		if err := do(); !errors.Is(err, rpctypes.ErrCorrupt) {
			t.Errorf("%s of corrupt data: %v", name, err)
		}
	}
	if _, err := c.Txn(ctx).Then(clientv3.OpGet("/a")).Commit(); err != nil {
		t.Errorf("corrupt data can be read: %v", err)
	}
	for path, want := range map[string]string{
		"/readyz":                                 "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n\n",
		"/readyz/data_corruption":                 "[-]data_corruption failed: alarm activated: CORRUPT\n\n",
		"/health?exclude=NOSPACE":                 `{"health":"false","reason":"ALARM CORRUPT"}` + "\n",
		"/health?exclude=NOSPACE&exclude=CORRUPT": `{"health":"false","reason":"ALARM UNKNOWN"}` + "\n",
	} {
		if code, body := getPath(t, s, path); code != http.StatusServiceUnavailable || body != want {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	for path, want := range map[string]string{
		"/livez?verbose": "[+]serializable_read ok\nok\n",
		"/readyz?exclude=data_corruption&exclude=nothing": "ok\n",
		"/readyz/non_learner?verbose":                     "[+]non_learner ok\nok\n",
	} {
		if code, body := getPath(t, s, path); code != http.StatusOK || body != want {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	if code, _ := getPath(t, s, "/readyz/nothing"); code != http.StatusNotFound {
		t.Errorf("an unknown check: %d", code)
	}
}

// A cluster of one says what an etcd says that can neither grow nor shrink at the moment.
func TestMembers(t *testing.T) {
	s := start(t, gateway.Config{MemberID: 7})
	c := etcdClient(t, s)
	ctx := within(t)
	raw := pb.NewClusterClient(c.ActiveConnection())
	add := func(learner bool, urls ...string) error {
		_, err := raw.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: urls, IsLearner: learner})
		return err
	}
	remove := func(id uint64) error { _, err := c.MemberRemove(ctx, id); return err }
	promote := func(id uint64) error { _, err := c.MemberPromote(ctx, id); return err }
	_, updateNobody := c.MemberUpdate(ctx, 1, []string{"http://127.0.0.1:1"})
	_, moveToNobody := c.MoveLeader(ctx, 1)
	for name, e := range map[string]struct{ got, want error }{
		"no URL":          {add(false), rpctypes.ErrGRPCMemberBadURLs},
		"no port":         {add(false, "http://host"), rpctypes.ErrGRPCMemberBadURLs},
		"no host":         {add(false, "http:///path"), rpctypes.ErrGRPCMemberBadURLs},
		"no scheme":       {add(false, "tcp://127.0.0.1:1"), rpctypes.ErrGRPCMemberBadURLs},
		"add":             {add(false, "http://127.0.0.1:1", "unix://localhost:1"), rpctypes.ErrGRPCMemberNotEnoughStarted},
		"learner":         {add(true, "http://127.0.0.1:1"), rpctypes.ErrGRPCTooManyLearners},
		"remove nobody":   {remove(1), rpctypes.ErrGRPCMemberNotFound},
		"remove the last": {remove(7), rpctypes.ErrGRPCMemberNotEnoughStarted},
		"update nobody":   {updateNobody, rpctypes.ErrGRPCMemberNotFound},
		"promote nobody":  {promote(1), rpctypes.ErrGRPCMemberNotFound},
		"promote":         {promote(7), rpctypes.ErrGRPCMemberNotLearner},
		"move to nobody":  {moveToNobody, rpctypes.ErrGRPCBadLeaderTransferee},
	} {
		if want := rpctypes.ErrorDesc(e.want); e.got == nil || !strings.HasSuffix(e.got.Error(), want) {
			t.Errorf("%s: %v, want %s", name, e.got, want)
		}
	}
	updated, err := c.MemberUpdate(ctx, 7, []string{"http://127.0.0.1:2380"})
	if err != nil || !cmp.Equal(updated.Members[0].GetPeerURLs(), []string{"http://127.0.0.1:2380"}) || updated.Header.GetRevision() != 0 {
		t.Errorf("%v, %v", updated, err)
	}
	if _, err := c.MoveLeader(ctx, 7); err != nil {
		t.Error(err)
	}
}

func TestDowngrade(t *testing.T) {
	s := start(t, gateway.Config{})
	c := etcdClient(t, s)
	ctx := within(t)
	const cancelled = clientv3.DowngradeCancel
	for i, step := range []struct {
		action        clientv3.DowngradeAction
		target, want  string
		version, live string // of the response and of the cluster afterwards
	}{
		{clientv3.DowngradeValidate, "3.5", "", "3.6", "3.6.0"},
		{clientv3.DowngradeValidate, "3.5.17-rc.1", "", "3.6", "3.6.0"},
		{clientv3.DowngradeValidate, "3.4.0", "invalid downgrade target version", "", "3.6.0"},
		{clientv3.DowngradeValidate, "3", "wrong downgrade target version format", "", "3.6.0"},
		{clientv3.DowngradeEnable, "3.5.0", "", "3.6", "3.5.0"},
		{clientv3.DowngradeEnable, "3.5.0", "invalid downgrade target version", "", "3.5.0"},
		{clientv3.DowngradeEnable, "3.4.0", "cluster has a downgrade job in progress", "", "3.5.0"},
		{cancelled, "", "", "3.5", "3.6.0"},
		{cancelled, "", "", "3.6", "3.6.0"},
	} {
		r, err := c.Downgrade(ctx, step.action, step.target)
		if err != nil && (step.want == "" || !strings.Contains(err.Error(), step.want)) || err == nil && r.Version != step.version {
			t.Errorf("step %d: %v, %v", i, r, err)
		}
		if _, body := getPath(t, s, "/version"); !strings.Contains(body, `"etcdcluster":"`+step.live+`"`) {
			t.Errorf("step %d: %s", i, body)
		}
		enabled := step.live == "3.5.0"
		if status, err := c.Status(ctx, s.addr); err != nil || status.DowngradeInfo.GetEnabled() != enabled {
			t.Errorf("step %d: %v, %v", i, status, err)
		}
	}
	if code, body := post(t, s, "/v3/maintenance/downgrade", `{"action":7}`); code != http.StatusInternalServerError || !strings.Contains(body, "unknown method") {
		t.Errorf("%d %s", code, body)
	}
}

// The metrics that etcd has too have its names and labels.
func TestMetricsOfEtcd(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := start(t, gateway.Config{Registerer: registry, Gatherer: registry, MemberID: 0x1f})
	c := etcdClient(t, s)
	ctx := within(t)
	if _, err := c.Put(ctx, "/a", "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Txn(ctx).Then(clientv3.OpPut("/b", "22"), clientv3.OpGet("/a"), clientv3.OpDelete("/c")).Commit(); err != nil {
		t.Fatal(err)
	}
	lease, err := c.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.KeepAliveOnce(ctx, lease.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Revoke(ctx, lease.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ctx, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, "/a", clientv3.WithRev(99)); err == nil {
		t.Fatal("the future can be read")
	}
	w := c.Watch(ctx, "/a", clientv3.WithRev(3), clientv3.WithCreatedNotify())
	<-w
	if code, body := post(t, s, "/v3/maintenance/alarm", `{"action":"ACTIVATE","alarm":"NOSPACE","memberID":31}`); code != http.StatusOK {
		t.Fatal(body)
	}
	getPath(t, s, "/health")
	getPath(t, s, "/health?exclude=NOSPACE")
	_, body := getPath(t, s, "/metrics")
	for _, line := range []string{
		`etcd_cluster_version{cluster_version="3.6"} 1`,
		`etcd_debugging_lease_granted_total 1`,
		`etcd_debugging_lease_renewed_total 1`,
		`etcd_debugging_lease_revoked_total 1`,
		`etcd_debugging_mvcc_compact_revision 3`,
		`etcd_debugging_mvcc_current_revision 3`,
		`etcd_debugging_mvcc_keys_total 2`,
		`etcd_debugging_mvcc_slow_watcher_total 0`,
		`etcd_debugging_mvcc_total_put_size_in_bytes 7`,
		`etcd_debugging_mvcc_watch_stream_total 1`,
		`etcd_debugging_mvcc_watcher_total 1`,
		`etcd_debugging_server_alarms{alarm_type="NOSPACE",server_id="1f"} 1`,
		`etcd_mvcc_delete_total 1`,
		`etcd_mvcc_put_total 2`,
		`etcd_mvcc_range_total 1`,
		`etcd_mvcc_txn_total 1`,
		`etcd_server_health_failures 1`,
		`etcd_server_health_success 1`,
		`etcd_server_id{server_id="1f"} 1`,
		`etcd_server_quota_backend_bytes 2.147483648e+09`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1`,
		`grpc_server_handled_total{grpc_code="OutOfRange",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 0`,
		`grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 1`,
		`grpc_server_msg_received_total{grpc_method="LeaseKeepAlive",grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"} 1`,
		`grpc_server_msg_sent_total{grpc_method="LeaseKeepAlive",grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"} 1`,
		`grpc_server_started_total{grpc_method="Snapshot",grpc_service="etcdserverpb.Maintenance",grpc_type="server_stream"} 0`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	for _, zero := range []string{"received_bytes_total 0", "sent_bytes_total 0", "compaction_last 0"} {
		if strings.Contains(body, zero+"\n") {
			t.Errorf("there is a %s", zero)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
	if problems, err := registry.Gather(); err != nil || len(problems) == 0 {
		t.Error(err)
	}
	if bytes.Count([]byte(body), []byte("\n# TYPE ")) < 40 {
		t.Error("metrics are missing")
	}
}
