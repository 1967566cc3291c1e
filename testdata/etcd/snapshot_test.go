package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// What etcdctl saves from a meshbridge, etcdutl makes an etcd of that has the
// same in it.
func TestSnapshotOfMeshbridgeBecomesAnEtcd(t *testing.T) {
	t.Parallel()
	saved := startMeshbridge(t)
	fill(t, saved)
	want := contentsOf(t, saved)
	file := saveSnapshot(t, saved)
	var status struct {
		Revision int64
		TotalKey int
		Version  string
	}
	if err := json.Unmarshal(tool(t, programs.etcdutl, "snapshot", "status", file, "-w", "json"), &status); err != nil {
		t.Fatal(err)
	}
	if status.Revision != want.Revision || status.Version != "3.6.0" || status.TotalKey == 0 {
		t.Errorf("%+v", status)
	}
	restored := startEtcdFrom(t, file)
	if diff := cmp.Diff(want, contentsOf(t, restored)); diff != "" {
		t.Errorf("(-meshbridge +etcd restored from it):\n%s", diff)
	}
	// And back again.
	again := startMeshbridge(t, "--restore", saveSnapshot(t, restored))
	if diff := cmp.Diff(want, contentsOf(t, again)); diff != "" {
		t.Errorf("(-first +restored from the etcd restored from it):\n%s", diff)
	}
}

// What etcdctl saves from an etcd, with or without the checksum, a meshbridge
// begins with.
func TestSnapshotOfEtcdBecomesAMeshbridge(t *testing.T) {
	t.Parallel()
	saved := startEtcd(t)
	fill(t, saved)
	want := contentsOf(t, saved)
	file := saveSnapshot(t, saved)
	if diff := cmp.Diff(want, contentsOf(t, startMeshbridge(t, "--restore", file))); diff != "" {
		t.Errorf("(-etcd +meshbridge restored from it):\n%s", diff)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bare := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(bare, data[:len(data)-32], 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, contentsOf(t, startMeshbridge(t, "--restore", bare))); diff != "" {
		t.Errorf("(-etcd +meshbridge restored without a checksum):\n%s", diff)
	}

	// Clients may have seen more of the etcd than was saved: with revisions of the clock they are
	// told to read again.
	later := startMeshbridge(t, "--restore", file, "--revision-base", "epoch")
	c, ctx := later.client(t), t.Context()
	r, err := c.Get(ctx, "/k/0", clientv3.WithPrefix())
	if err != nil || r.Header.GetRevision() < 1_600_000_000_000 || len(r.Kvs) == 0 || r.Kvs[0].ModRevision > want.Revision {
		t.Fatalf("%v, %v", r, err)
	}
	if w := <-c.Watch(ctx, "/k/0", clientv3.WithRev(want.Revision+1)); w.CompactRevision != r.Header.GetRevision() {
		t.Errorf("watch from a revision of the etcd: %+v", w)
	}
	if p, err := c.Put(ctx, "/k/0", "later"); err != nil || p.Header.GetRevision() != r.Header.GetRevision()+1 {
		t.Errorf("%v, %v", p, err)
	}
}

// etcdutl can raise the revision of what it restores, for clients that have
// seen more.
func TestRaisedRevisionOfEtcdutl(t *testing.T) {
	t.Parallel()
	saved := startEtcd(t)
	fill(t, saved)
	dir, _ := restoreEtcd(t, saveSnapshot(t, saved), "--bump-revision", "1000000", "--mark-compacted")
	restored := startMeshbridge(t, "--restore", filepath.Join(dir, "member", "snap", "db"))
	r, err := restored.client(t).Get(t.Context(), "\x00", clientv3.WithFromKey())
	want := contentsOf(t, saved)
	if err != nil || r.Header.GetRevision() != want.Revision+1_000_000 || int(r.Count) != len(want.Keys[want.Revision]) {
		t.Errorf("%v, %v; saved at revision %d", r, err, want.Revision)
	}
}

// A file that is not a snapshot, or not a whole one, is refused with a reason.
func TestRestoreOfABrokenFile(t *testing.T) {
	t.Parallel()
	saved := startEtcd(t)
	fill(t, saved)
	good, err := os.ReadFile(saveSnapshot(t, saved))
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(good)
	flipped[len(good)/2] ^= 1
	for want, data := range map[string][]byte{
		"checksum":             flipped,
		"truncated":            good[:len(good)/8192*4096],
		"not an etcd snapshot": []byte(strings.Repeat("no snapshot ", 1000)),
	} {
		file := filepath.Join(t.TempDir(), "broken.db")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		output, err := exec.CommandContext(ctx, programs.meshbridge, "etcd", "--listen", "127.0.0.1:0", "--restore", file).CombinedOutput()
		cancel()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(output), want) || !strings.Contains(string(output), "broken.db") {
			t.Errorf("%v: %s, want %s", err, output, want)
		}
	}
}

// fill writes something of everything.
func fill(t *testing.T, s server) {
	t.Helper()
	c, ctx := s.client(t), t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	must(c.Grant(ctx, 1000))
	lease := clientv3.LeaseID(-5)
	must(pb.NewLeaseClient(c.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(lease), TTL: 600}))
	random := randomness(t)
	for i := range 300 {
		key := fmt.Sprintf("/k/%d", random.IntN(40))
		switch random.IntN(6) {
		case 0:
			must(c.Delete(ctx, key))
		case 1:
			must(c.Put(ctx, key, strings.Repeat("x", random.IntN(5000)), clientv3.WithLease(lease)))
		case 2:
			must(c.Txn(ctx).Then(clientv3.OpPut(key, "in a transaction"), clientv3.OpDelete("/l/", clientv3.WithPrefix()), clientv3.OpPut("/m", "")).Commit())
		default:
			must(c.Put(ctx, key, fmt.Sprint(i)))
		}
		if i == 100 {
			r, err := c.Get(ctx, "x")
			must(nil, err)
			must(c.Compact(ctx, r.Header.GetRevision(), clientv3.WithCompactPhysical()))
		}
	}
	must(c.Put(ctx, "/k/0", "the last"))
	must(c.RoleAdd(ctx, "reader"))
	must(c.RoleGrantPermission(ctx, "reader", "/k/", "/k0", clientv3.PermissionType(clientv3.PermRead)))
	must(c.UserAdd(ctx, "alice", "secret"))
	must(c.UserGrantRole(ctx, "alice", "reader"))
}

// contents is what two servers have in common where one was restored from the
// other.
type contents struct {
	Revision, Compacted int64
	Keys                map[int64]map[string]string // by revision
	Events              []string
	Hashes              map[int64]uint32
	Leases              map[int64]int64
	Users, Roles        []string
	Permissions         string
}

func contentsOf(t *testing.T, s server) contents {
	t.Helper()
	c, ctx := s.client(t), t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	hash, err := c.HashKV(ctx, s.address, 0)
	check(err)
	got := contents{
		Revision: hash.HashRevision, Compacted: hash.CompactRevision,
		Keys: map[int64]map[string]string{}, Hashes: map[int64]uint32{}, Leases: map[int64]int64{},
	}
	for revision := max(got.Compacted, 1); revision <= got.Revision; revision++ {
		if revision > got.Compacted {
			// At the compact revision a running etcd, unlike one that was restored, answers with the hash
			// of what was there before the compaction.
			hash, err := c.HashKV(ctx, s.address, revision)
			check(err)
			got.Hashes[revision] = hash.Hash
		}
		r, err := c.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(revision))
		check(err)
		got.Keys[revision] = map[string]string{}
		for _, kv := range r.Kvs {
			got.Keys[revision][string(kv.Key)] = kv.String()
		}
	}
	watch, stop := context.WithCancel(ctx)
	defer stop()
	for w := range c.Watch(watch, "\x00", clientv3.WithFromKey(), clientv3.WithRev(max(got.Compacted, 1)), clientv3.WithPrevKV()) {
		check(w.Err())
		last := int64(0)
		for _, e := range w.Events {
			got.Events = append(got.Events, fmt.Sprint(e))
			last = e.Kv.ModRevision
		}
		if last >= got.Revision {
			break
		}
	}
	leases, err := c.Leases(ctx)
	check(err)
	for _, l := range leases.Leases {
		ttl, err := c.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
		check(err)
		if ttl.ID < 0 {
			got.Leases[int64(ttl.ID)] = ttl.GrantedTTL<<16 + int64(len(ttl.Keys))
		}
	}
	users, err := c.UserList(ctx)
	check(err)
	roles, err := c.RoleList(ctx)
	check(err)
	role, err := c.RoleGet(ctx, "reader")
	check(err)
	got.Users, got.Roles, got.Permissions = users.Users, roles.Roles, fmt.Sprint(role.Perm)
	if len(got.Leases) == 0 || len(got.Events) == 0 || len(got.Keys) < 2 {
		t.Fatalf("%s: %+v", s.name, got)
	}
	return got
}

// saveSnapshot returns the file that etcdctl saves.
func saveSnapshot(t *testing.T, s server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "saved.db")
	tool(t, programs.etcdctl, "--endpoints", s.address, "snapshot", "save", file)
	return file
}

// tool runs a program to its end and returns what it prints.
func tool(t *testing.T, path string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	output, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		_ = errors.As(err, &exit)
		t.Fatalf("%s %v: %v: %+v", filepath.Base(path), args, err, exit)
	}
	return output
}

// restoreEtcd makes a data directory of a snapshot, and returns it with the
// address for peers that it is for.
func restoreEtcd(t *testing.T, file string, args ...string) (dir, peer string) {
	t.Helper()
	dir, peer = filepath.Join(t.TempDir(), "restored"), freeAddress(t)
	tool(t, programs.etcdutl, append([]string{
		"snapshot", "restore", file, "--data-dir", dir,
		"--initial-cluster", "default=http://" + peer, "--initial-advertise-peer-urls", "http://" + peer,
	}, args...)...)
	return dir, peer
}

// startEtcdFrom runs an etcd with what a snapshot has.
func startEtcdFrom(t *testing.T, file string) server {
	t.Helper()
	dir, peer := restoreEtcd(t, file)
	return startEtcd(t, "--data-dir", dir, "--listen-peer-urls", "http://"+peer,
		"--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
}
