package bridge

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// keyLine returns a line out of the middle of a credential's private key.
func keyLine(s *tlspb.Secret) string {
	return strings.Split(string(s.GetTlsCertificate().GetPrivateKey().GetInlineBytes()), "\n")[1]
}

func TestANewCertificateIsOneChangedObjectAndItsKeyIsShownNowhere(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(1, 1).Resources()...)
	istiod.Set(xdstest.Gateway(8443, "a.com", "b.com")...)
	first, other := xdstest.Credential("a.com"), xdstest.Credential("b.com")
	istiod.Set(first, other)
	log := &lockedBuffer{}
	config := testConfig(istiod)
	config.Translate.Profile = translate.Gateway()
	config.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r := startBridge(t, config)
	r.waitReady(t)
	before := r.served(t)
	h := newHistory(t, r.store)
	key := ""
	for k, value := range before {
		if strings.Contains(k, "ssls/s.") && strings.Contains(value, keyLine(first)) {
			key = k
		}
	}
	if key == "" {
		t.Fatalf("no ssl with the certificate: %q", slices.Sorted(maps.Keys(before)))
	}

	second := xdstest.Credential("a.com")
	istiod.Set(second)
	r.waitServed(t, func(now map[string]string) bool { return strings.Contains(now[key], keyLine(second)) })
	if revisions := h.next(); len(revisions) != 1 || len(revisions[0]) != 1 || !strings.HasPrefix(revisions[0][0], "put /apisix/"+strings.TrimPrefix(key, "/apisix/")) {
		t.Errorf("a new certificate made %d revisions, the first with %d events; want one put of %s", len(revisions), len(revisions[0]), key)
	}

	// One that cannot be used changes nothing.
	broken := xdstest.Credential("b.com")
	const canary = "canary-of-the-private-key"
	broken.GetTlsCertificate().PrivateKey = &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: canary}}
	istiod.Set(broken)
	istiod.WaitRequest("NACK", func(q xdstest.Request) bool { return q.TypeURL == xds.SecretType && q.Error != "" })
	third := xdstest.Credential("a.com")
	istiod.Set(third)
	now := r.waitServed(t, func(now map[string]string) bool { return strings.Contains(now[key], keyLine(third)) })
	if !slices.ContainsFunc(slices.Collect(maps.Values(now)), func(value string) bool { return strings.Contains(value, keyLine(other)) }) {
		t.Error("the broken certificate took the place of the good one")
	}

	shown := map[string]string{"log": log.String()}
	for _, path := range []string{"/diagnostics", "/debug/pprof/cmdline", "/", "/config_dump?include_eds", "/certs", "/server_info", "/stats", "/objects"} {
		_, shown[path] = get(t, "http://"+r.address(0)+path)
	}
	if !strings.Contains(shown["/objects"], key[strings.LastIndexByte(key, '/')+1:]) {
		t.Errorf("/objects has no %s: %s", key, shown["/objects"])
	}
	_, shown["metrics"] = get(t, "http://"+r.address(2)+"/metrics")
	code, explained := post(t, r.address(0), "/explain", `{"url":"https://a.com:8443/x"}`)
	if code != http.StatusOK || !strings.Contains(explained, strings.TrimPrefix(key[strings.LastIndexByte(key, '/')+1:], "/")) {
		t.Errorf("explain does not name the ssl: %d %s", code, explained)
	}
	shown["explain"] = explained
	if expiry := "\nmeshbridge_certificate_expiry_timestamp_seconds "; !strings.Contains(shown["metrics"], expiry) || strings.Contains(shown["metrics"], expiry+"0\n") {
		t.Error("no metric about the expiry")
	}
	for where, text := range shown {
		for _, secret := range []string{canary, keyLine(first), keyLine(second), keyLine(third), keyLine(other)} {
			if strings.Contains(text, secret) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(secret))[:16]) {
				t.Errorf("%s shows a private key", where)
			}
		}
	}
}

func TestAnExpiredCertificateIsServedAndReported(t *testing.T) {
	istiod := xdstest.NewServer(t)
	log := &lockedBuffer{}
	config := testConfig(istiod)
	config.Logger = slog.New(slog.NewJSONHandler(log, nil))
	b, err := New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer b.closeListeners()
	defer b.store.Close()
	state, result, err := translate.Translate(translate.Options{Profile: translate.Gateway()}, gatewaySnapshot("a.com"), translate.Inputs{})
	if err != nil || state == nil {
		t.Fatal(err)
	}
	b.pipeline.noteCertificates(time.Now(), result)
	if strings.Contains(log.String(), "expired") {
		t.Errorf("a good certificate is reported: %s", log)
	}
	b.pipeline.noteCertificates(time.Now().AddDate(100, 0, 0), result)
	if !strings.Contains(log.String(), "certificate has expired") || !strings.Contains(log.String(), "ssls/s.kubernetes.a.com") {
		t.Errorf("an expired certificate is not reported: %s", log)
	}
}

func gatewaySnapshot(host string) *xds.Snapshot {
	var snap *xds.Snapshot
	credential := xdstest.Credential(host)
	put := []*xds.Resource{{Key: xds.Key{Type: xds.SecretType, Name: credential.GetName()}, Body: xdstest.Any(credential)}}
	for _, m := range xdstest.Gateway(8443, host) {
		body := xdstest.Any(m)
		named, _ := m.(interface{ GetName() string })
		put = append(put, &xds.Resource{Key: xds.Key{Type: body.GetTypeUrl(), Name: named.GetName()}, Body: body})
	}
	return snap.With(put, nil)
}

// A server name must not be in two ssls, nor in none, for any APISIX that follows.
func TestAServerNameChangesItsSSLInOneRevision(t *testing.T) {
	w, h := testWriter(t)
	h.next()
	now := time.Now()
	if _, err := w.add(now, translate.Result{Put: []apisix.Object{object(apisix.KindSSL, "s.a", "1")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.add(now, translate.Result{
		Put: []apisix.Object{object(apisix.KindSSL, "s.b", "1"), object(apisix.KindRoute, "r.a", "2")}, Delete: []string{"ssls/s.a"},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.flush(now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"put /apisix/ssls/s.a 1"},
		{"delete /apisix/ssls/s.a", "put /apisix/ssls/s.b 1"},
		{"put /apisix/routes/r.a 2"},
	}
	if diff := cmp.Diff(want, h.next()); diff != "" {
		t.Error(diff)
	}
}

// waitServed returns what is served once it is as expected.
func (r *running) waitServed(t *testing.T, expected func(map[string]string) bool) map[string]string {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		now := r.served(t)
		if expected(now) {
			return now
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not served: %q", slices.Sorted(maps.Keys(now)))
		}
	}
}
