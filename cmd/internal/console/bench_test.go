package console_test

import (
	"net/http"
	"net/url"
	"testing"

	"meshbridge/store"
	"meshbridge/translate"
	"meshbridge/xds/xdstest"
)

// BenchmarkPage makes each view in a world of 5,000 services with 5 endpoints each. "changed" is the same after
// one object changed, and "first" when nobody has looked for a minute.
func BenchmarkPage(b *testing.B) {
	mesh := xdstest.Mesh(5000, 5)
	page := newBridge(b, translate.Mesh(), snapshotOf(b, mesh.Resources()...))
	cluster := url.QueryEscape(xdstest.ClusterName(77))
	config := url.QueryEscape(mesh.Routes[0].GetName())
	host := url.QueryEscape(mesh.Routes[0].GetVirtualHosts()[3].GetName())
	view := func(b *testing.B, path string) {
		b.Helper()
		if w := page.do(http.MethodGet, path, ""); w.Code != http.StatusOK {
			b.Fatalf("%s: %d %.300s", path, w.Code, w.Body)
		}
	}
	views := []struct{ name, path string }{
		{"now", "/"},
		{"sync", "/sync"},
		{"resources", "/resources"},
		{"search", "/resources?q=svc-4321"},
		{"flagged", "/resources?flagged=1"},
		{"cluster", "/resource?type=Cluster&name=" + cluster},
		{"virtual-host", "/resource?type=RouteConfiguration&name=" + config + "&virtual_host=" + host},
		{"warnings", "/warnings"},
		{"hosts", "/graph"},
		{"graph", "/graph?config=" + config + "&host=" + host},
		{"check", "/check?host=" + url.QueryEscape(xdstest.Service(77)+":"+xdstest.ClusterName(77)[9:13]) + "&path=/"},
		{"changes", "/changes"},
		{"tools", "/tools"},
	}
	for _, v := range views {
		b.Run(v.name, func(b *testing.B) {
			view(b, v.path) // which reads the objects
			for b.Loop() {
				view(b, v.path)
			}
		})
	}
	b.Run("changed", func(b *testing.B) {
		o := page.objects[len(page.objects)-1]
		for b.Loop() {
			if _, err := page.store.Txn(store.Txn{Success: []store.Op{{Put: &store.PutOp{Key: []byte("/apisix/" + o.Key()), Value: o.Value}}}}); err != nil {
				b.Fatal(err)
			}
			view(b, "/resources")
		}
	})
	for _, v := range views {
		if v.name != "resources" && v.name != "check" {
			continue
		}
		b.Run("first-"+v.name, func(b *testing.B) {
			for b.Loop() {
				page.restart()
				view(b, v.path)
			}
		})
	}
}
