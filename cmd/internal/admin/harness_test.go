package admin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/cmd/internal/admin"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/identity"
	"meshbridge/xds"
)

// received is when the resources of the tests came.
func received() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// resource packs a resource as xds would.
func resource(t *testing.T, typeURL, name string, m proto.Message) *xds.Resource {
	t.Helper()
	body, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return &xds.Resource{Key: xds.Key{Type: typeURL, Name: name}, Body: body, Received: received(), Response: "push-7"}
}

// bridge is what the admin port of the tests shows.
type bridge struct {
	*admin.Server

	world          admin.World
	ready          bool
	identity       *identity.Identity
	levels         *logscope.Levels
	drained, ended int
}

func newBridge(put ...*xds.Resource) *bridge {
	var none *xds.Snapshot
	snapshot := none.With(put, nil)
	b := &bridge{world: admin.World{Active: snapshot, Received: snapshot}, ready: true}
	log := slog.New(logscope.NewHandler(slog.DiscardHandler, slog.LevelInfo))
	b.levels = logscope.LevelsOf(log)
	registry := prometheus.NewRegistry()
	pushes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "meshbridge_xds_pushes_total", Help: "h"}, []string{"type"})
	idle := prometheus.NewGauge(prometheus.GaugeOpts{Name: "idle", Help: "h"})
	_ = registry.Register(pushes)
	_ = registry.Register(idle)
	pushes.WithLabelValues("Cluster").Add(3)
	b.Server = admin.New(admin.Config{
		Node: &corepb.Node{Id: "sidecar~10.0.0.1~a.default~default.svc.cluster.local", Cluster: "a.default"}, Istiod: "istiod:15012",
		Version: "1.2.3", APISIX: "3.18.0", DrainTime: 5 * time.Second,
		World:    func() admin.World { return b.world },
		Ready:    func() bool { return b.ready },
		Identity: func() *identity.Identity { return b.identity },
		Addresses: func(name string) []netip.Addr {
			if name == "db.example" {
				return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
			}
			return nil
		},
		Levels: b.levels, Gatherer: registry,
		Drain: func() { b.drained++ }, Quit: func() { b.ended++ },
	})
	return b
}

// do sends a request as a program on this host does.
func (b *bridge) do(method, path string) (status int, body string) {
	r := httptest.NewRequest(method, "http://127.0.0.1:15000"+path, http.NoBody)
	r.RemoteAddr = "127.0.0.1:4711"
	w := httptest.NewRecorder()
	admin.Guard(b.Handler()).ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func (b *bridge) get(t *testing.T, path string) string {
	t.Helper()
	status, body := b.do(http.MethodGet, path)
	if status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, status, body)
	}
	return body
}

// decode reads an answer as the message that Envoy's API has for it.
func decode[T proto.Message](t *testing.T, body string, into T) T {
	t.Helper()
	if err := protojson.Unmarshal([]byte(body), into); err != nil {
		t.Fatalf("%v in\n%s", err, body)
	}
	return into
}

// section returns one part of a config dump.
func section[T proto.Message](t *testing.T, body string, into T) T {
	t.Helper()
	for _, part := range decode(t, body, &adminpb.ConfigDump{}).GetConfigs() {
		if part.MessageIs(into) {
			if err := part.UnmarshalTo(into); err != nil {
				t.Fatal(err)
			}
			return into
		}
	}
	t.Fatalf("no %T in\n%s", into, body)
	return into
}

// newIdentity issues a certificate to itself.
func newIdentity(t *testing.T) (i *identity.Identity, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := url.Parse("spiffe://cluster.local/ns/default/sa/a")
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0xabc), Subject: pkix.Name{Organization: []string{"o"}}, URIs: []*url.URL{id}, DNSNames: []string{"a.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(49 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return &identity.Identity{
		ID: id.String(), Certificate: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, AuthoritiesPEM: text,
	}, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func contains(t *testing.T, body string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(body, p) {
			t.Errorf("no %q in\n%s", p, body)
		}
	}
}
