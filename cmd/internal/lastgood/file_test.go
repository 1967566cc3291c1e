package lastgood

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

var self = Identity{Node: "sidecar~10.0.0.1~app.default~default.svc.cluster.local", Cluster: "Kubernetes"}

// snapshotOf makes a snapshot as a source would.
func snapshotOf(tb testing.TB, messages ...proto.Message) *xds.Snapshot {
	tb.Helper()
	var kept []*xds.Resource
	for _, m := range messages {
		r := &xds.Resource{Body: xdstest.Any(m)}
		r.Type = r.Body.GetTypeUrl()
		kept = append(kept, r)
	}
	u := xds.Restore(kept, time.Time{})
	if len(u.Rejected) > 0 {
		tb.Fatal(u.Rejected)
	}
	return u.Snapshot
}

func contentOf(s *xds.Snapshot, keys bool) content {
	c := content{header: header{
		Identity: self, Received: time.Unix(1000, 0).UTC(),
		Names: map[string][]netip.Addr{"db.example.com": {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
	}}
	c.resources, c.LeftOut = resourcesOf(s, keys)
	c.Resources = len(c.resources)
	return c
}

// bodies are the bytes of all resources.
func bodies(s *xds.Snapshot) map[string]string {
	all := map[string]string{}
	for _, typeURL := range s.Types() {
		for r := range s.All(typeURL) {
			all[r.String()] = string(r.Body.GetValue())
		}
	}
	return all
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "below", "world")
	world := snapshotOf(t, xdstest.Mesh(20, 3).Resources()...)
	table := &xds.Resource{Body: (&xds.NameTable{Names: map[string]xds.NameInfo{"a.example": {Registry: "External"}}}).Body()}
	table.Type = xds.NameTableType
	world = world.With([]*xds.Resource{table}, nil)
	written := contentOf(world, false)
	size, err := writeFile(path, written)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != size || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v, want %d bytes for the owner alone", info, err, size)
	}
	read, _, err := readFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(written.header, read.header, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
	u := xds.Restore(read.resources, read.Received)
	if d := cmp.Diff(bodies(world), bodies(u.Snapshot)); d != "" || len(u.Rejected) > 0 {
		t.Errorf("%s%v", d, u.Rejected)
	}
}

func TestPrivateKeysAreLeftOutUnlessAskedFor(t *testing.T) {
	gateway := append(xdstest.Gateway(8443, "a.example"), xdstest.Credential("a.example"))
	world := snapshotOf(t, gateway...)
	for _, keys := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "world")
		c := contentOf(world, keys)
		if _, err := writeFile(path, c); err != nil {
			t.Fatal(err)
		}
		read, _, err := readFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := slices.ContainsFunc(read.resources, func(r *xds.Resource) bool {
			return bytes.Contains(r.Body.GetValue(), []byte("PRIVATE KEY"))
		})
		if found != keys || (read.LeftOut > 0) == keys || len(read.resources)+read.LeftOut != len(gateway) {
			t.Errorf("keys %v: a private key is in it: %v, %d resources, %d left out", keys, found, len(read.resources), read.LeftOut)
		}
	}
}

func TestADamagedFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "world")
	if _, err := writeFile(path, contentOf(snapshotOf(t, xdstest.Mesh(2, 1).Resources()...), false)); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := decode(bad); err == nil {
			t.Fatalf("a flipped bit in byte %d is not noticed", i)
		}
		if _, err := decode(good[:i]); err == nil {
			t.Fatalf("the first %d of %d bytes are accepted", i, len(good))
		}
	}
	other := strings.Replace(string(good), "format 1", "format 2", 1)
	if _, err := decode([]byte(other)); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("another format: %v", err)
	}
}

// A process that died while writing leaves the file of before, and what it wrote is in nobody's way.
func TestAFileThatWasNotFinishedIsInNobodysWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "world")
	first, second := snapshotOf(t, xdstest.Mesh(2, 1).Resources()...), snapshotOf(t, xdstest.Mesh(3, 1).Resources()...)
	if _, err := writeFile(path, contentOf(first, false)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(magic+"half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := readFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(bodies(first), bodies(xds.Restore(c.resources, c.Received).Snapshot)); d != "" {
		t.Error(d)
	}
	if _, err := writeFile(path, contentOf(second, false)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v, want the file alone", entries, err)
	}
}

func TestAFullDiskLeavesTheFileOfBefore(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full to write to")
	}
	path := filepath.Join(t.TempDir(), "world")
	if _, err := writeFile(path, contentOf(snapshotOf(t, xdstest.Mesh(2, 1).Resources()...), false)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", path+".new"); err != nil {
		t.Fatal(err)
	}
	if _, err := writeFile(path, contentOf(snapshotOf(t, xdstest.Mesh(3, 1).Resources()...), false)); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("wrote to a full disk: %v", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file differs (%v)", err)
	}
}

func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	if _, err := encode(&b, contentOf(snapshotOf(f, xdstest.Mesh(2, 1).Resources()...), false)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(magic))
	f.Fuzz(func(_ *testing.T, data []byte) {
		c, err := decode(data)
		if err == nil {
			xds.Restore(c.resources, c.Received)
		}
	})
}
