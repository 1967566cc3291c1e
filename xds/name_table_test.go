package xds_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

func nameTable(ips ...string) *xds.NameTable {
	var addresses []netip.Addr
	for _, ip := range ips {
		addresses = append(addresses, netip.MustParseAddr(ip))
	}
	return &xds.NameTable{Names: map[string]xds.NameInfo{
		"reviews.default.svc.cluster.local": {
			Addresses: addresses, Registry: "Kubernetes", Shortname: "reviews", Namespace: "default", AltHosts: []string{"alt"},
		},
		"*.example.com": {Addresses: []netip.Addr{netip.MustParseAddr("240.240.0.1"), netip.MustParseAddr("2001:2::1")}, Registry: "External"},
	}}
}

var equateAddresses = cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()}

func tableOf(t *testing.T, u xds.Update) *xds.NameTable {
	t.Helper()
	table, err := xds.DecodeNameTable(u.Snapshot.Get(xds.Key{Type: xds.NameTableType}))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTheNameTableIsSubscribedToOnDemand(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(1, 1).Resources()...)
			srv.SetRaw("", nameTable("10.0.0.1").Body())
			_, without := connect(t, srv, world)
			without.wait("first sync", everything)
			for _, r := range srv.Requests() {
				if r.TypeURL == xds.NameTableType {
					t.Error("subscribed without being told to")
				}
			}

			_, o := connectWith(t, xds.Config{Address: srv.Addr(), StateOfTheWorld: world, NameTable: true})
			u := o.wait("first sync", everything)
			if diff := cmp.Diff(nameTable("10.0.0.1"), tableOf(t, u), equateAddresses); diff != "" {
				t.Error(diff)
			}
			if u.Snapshot.Len(xds.ClusterType) != 1 {
				t.Error("the other types are not subscribed to any more")
			}
			srv.SetRaw("", nameTable("10.0.0.2").Body())
			u = o.wait("the change", func(u xds.Update) bool {
				return tableOf(t, u).Names["reviews.default.svc.cluster.local"].Addresses[0] == netip.MustParseAddr("10.0.0.2")
			})
			if diff := cmp.Diff([]xds.Key{{Type: xds.NameTableType}}, u.Changed); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestABadNameTableIsRefusedAndTheLastOneStays(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.SetRaw("", nameTable("10.0.0.1").Body())
			_, o := connectWith(t, xds.Config{Address: srv.Addr(), StateOfTheWorld: world, Types: []string{xds.ClusterType}, NameTable: true})
			o.wait("first sync", everything)
			body := nameTable("10.0.0.2").Body()
			srv.SetRaw("", &anypb.Any{TypeUrl: body.GetTypeUrl(), Value: body.GetValue()[:len(body.GetValue())-1]})
			u := o.wait("the rejection", func(u xds.Update) bool { return len(u.Rejected) == 1 })
			if diff := cmp.Diff(nameTable("10.0.0.1"), tableOf(t, u), equateAddresses); diff != "" {
				t.Error(diff)
			}
			srv.WaitRequest("NACK", func(r xdstest.Request) bool { return r.TypeURL == xds.NameTableType && r.Error != "" })
			srv.SetRaw("", body)
			o.wait("recovery", func(u xds.Update) bool {
				return len(u.Rejected) == 0 && tableOf(t, u).Names["reviews.default.svc.cluster.local"].Addresses[0] == netip.MustParseAddr("10.0.0.2")
			})
		})
	}
}

// A server that has no name table must not keep the rest from being served.
func TestTheWorldIsCompleteWithoutANameTable(t *testing.T) {
	u := xds.Update{Snapshot: &xds.Snapshot{}, Pending: []xds.Key{{Type: xds.NameTableType}}}
	if !u.Complete() {
		t.Error("not complete")
	}
	if u.Pending = append(u.Pending, xds.Key{Type: xds.ClusterType}); u.Complete() {
		t.Error("complete without clusters")
	}
}

func TestAddressesThatAreNoneAreNamed(t *testing.T) {
	info := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "10.0.0.0/8")
	info = protowire.AppendString(protowire.AppendTag(info, 1, protowire.BytesType), "::ffff:10.0.0.1")
	info = protowire.AppendVarint(protowire.AppendTag(info, 77, protowire.VarintType), 1) // a field of the future
	entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "a")
	entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), info)
	body := &anypb.Any{TypeUrl: xds.NameTableType, Value: protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), entry)}
	table, err := xds.DecodeNameTable(&xds.Resource{Key: xds.Key{Type: xds.NameTableType}, Body: body})
	if err != nil {
		t.Fatal(err)
	}
	want := &xds.NameTable{
		Names:   map[string]xds.NameInfo{"a": {Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
		Ignored: []string{"a: 10.0.0.0/8"},
	}
	if diff := cmp.Diff(want, table, equateAddresses); diff != "" {
		t.Error(diff)
	}
}

func TestNameTablesAreReadFromFiles(t *testing.T) {
	snapshot, rejected, err := xds.LoadFiles("../testdata/istiod/service-entry-client/xds")
	if err != nil || len(rejected) > 0 {
		t.Fatal(err, rejected)
	}
	table := tableOf(t, xds.Update{Snapshot: snapshot})
	want := xds.NameInfo{
		Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.22")}, Registry: "Kubernetes", Shortname: "auto", Namespace: "default",
	}
	if diff := cmp.Diff(want, table.Names["auto.default.svc.cluster.local"], equateAddresses); diff != "" {
		t.Error(diff)
	}
	if got := table.Names["*.dyn.example"].Addresses; len(got) != 1 || got[0] != netip.MustParseAddr("240.240.0.1") {
		t.Errorf("*.dyn.example: %v", got)
	}
}

func FuzzNameTable(f *testing.F) {
	f.Add(nameTable("10.0.0.1", "fd00::1").Body().GetValue())
	f.Add([]byte("\x0a\x03\x0a\x01a"))
	f.Fuzz(func(t *testing.T, value []byte) {
		decode := func(value []byte) (*xds.NameTable, error) {
			return xds.DecodeNameTable(&xds.Resource{
				Key: xds.Key{Type: xds.NameTableType}, Body: &anypb.Any{TypeUrl: xds.NameTableType, Value: value},
			})
		}
		table, err := decode(value)
		if err != nil {
			if !strings.Contains(err.Error(), "name table") {
				t.Errorf("error %v", err)
			}
			return
		}
		again, err := decode(table.Body().GetValue())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(table.Names, again.Names, equateAddresses); diff != "" {
			t.Error(diff)
		}
	})
}
