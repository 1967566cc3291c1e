package translate

import (
	"crypto/sha256"
	"crypto/tls"
	"maps"
	"slices"
	"strings"
	"testing"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// FuzzTranslation changes one resource of what a real istiod sent, in any way that Envoy would take.
// Translation does not panic, makes no object that APISIX would refuse, and says only what is in its
// tables; and neither the order of maps nor how a State came to a snapshot makes a difference.
func FuzzTranslation(f *testing.F) {
	recordings := loadScenarios(f)
	for i := range recordings {
		for j := range 6 {
			script := sha256.Sum256([]byte{byte(i), byte(j)})
			f.Add(uint8(i), uint8(j), script[0], script[1:])
		}
	}
	f.Fuzz(func(t *testing.T, recording, kind, resource uint8, script []byte) {
		sc := recordings[int(recording)%len(recordings)]
		types := slices.DeleteFunc(append(slices.Clone(translatedTypes), xds.SecretType), func(url string) bool { return sc.snapshot.Len(url) == 0 })
		all := slices.Collect(sc.snapshot.All(types[int(kind)%len(types)]))
		edited := editedResource(t, all[int(resource)%len(all)], namesOf(sc.snapshot), script)
		profiles := sc.profiles()
		checkUpdate(t, sc.with(profiles[int(kind)/len(types)%len(profiles)]), sc.snapshot, edited)
	})
}

// editedResource returns a resource with some changes that package xds lets pass.
func editedResource(tb testing.TB, r *xds.Resource, names []string, script []byte) *xds.Resource {
	tb.Helper()
	m, err := r.Message()
	if err != nil {
		tb.Fatal(err)
	}
	valid := func(m proto.Message) bool {
		raw, err := proto.Marshal(m) // fails where a string is not UTF-8
		if err != nil || proto.Unmarshal(raw, m) != nil {
			return false
		}
		v, ok := m.(interface{ Validate() error })
		return ok && v.Validate() == nil && hasItsKey(m)
	}
	return newResource(tb, r.Name, (&editor{script, names}).run(m, valid))
}

// hasItsKey tells whether a secret with a certificate has the key that belongs to it.
func hasItsKey(m proto.Message) bool {
	secret, _ := m.(*tlspb.Secret)
	certificate := secret.GetTlsCertificate()
	chain, key := inlineData(certificate.GetCertificateChain()), inlineData(certificate.GetPrivateKey())
	if chain == "" || key == "" {
		return true
	}
	_, err := tls.X509KeyPair([]byte(chain), []byte(key))
	return err == nil
}

func namesOf(snap *xds.Snapshot) []string {
	names := map[string]bool{}
	for _, typeURL := range append(slices.Clone(translatedTypes), xds.SecretType) {
		for r := range snap.All(typeURL) {
			names[r.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// checkUpdate translates a snapshot, and then with one resource replaced.
func checkUpdate(tb testing.TB, options Options, before *xds.Snapshot, edited *xds.Resource) {
	tb.Helper()
	in := Inputs{Allocations: newTestAllocations()}
	s, r, err := Translate(options, before, in)
	if err != nil {
		tb.Fatal(err)
	}
	mirror := &captureMirror{}
	mirror.apply(tb, r)
	after := before.With([]*xds.Resource{edited}, nil)
	r = s.Apply(Input{Snapshot: after, Changed: []xds.Key{edited.Key}, Inputs: in})
	mirror.apply(tb, r)
	mirror.compare(tb, "added up", s)
	for _, o := range r.Put {
		checkAccepted(tb, o)
	}
	for _, d := range s.Diagnostics() {
		if _, known := s.catalogue[d.Code]; !known || d.Code == "invalid_object" || d.Code == "id_collision" || strings.Contains(d.Message, "%!") || d.Resource == "" {
			tb.Error(d)
		}
	}
	fresh := anew(tb, s, after, in)
	mirror.compare(tb, "at once", fresh)
	if diff := cmp.Diff(objectsOf(fresh), objectsOf(s)); diff != "" {
		tb.Errorf("objects (-at once +by steps):\n%s", diff)
	}
	if diff := cmp.Diff(fresh.Diagnostics(), s.Diagnostics()); diff != "" {
		tb.Errorf("diagnostics (-at once +by steps):\n%s", diff)
	}
}

// FuzzRouteConfigurations feeds anything that decodes as a route configuration: translation neither
// panics nor makes an object that APISIX would refuse.
func FuzzRouteConfigurations(f *testing.F) {
	for _, sc := range loadScenarios(f) {
		for r := range sc.snapshot.All(xds.RouteType) {
			f.Add(r.Body.GetValue())
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		config := &routepb.RouteConfiguration{}
		if proto.Unmarshal(body, config) != nil || config.ValidateAll() != nil {
			t.Skip() // package xds refuses it
		}
		s := chainState(t, config)
		e, err := apisix.NewEvaluator(s.Objects(), apisix.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if refused := e.Refused(); len(refused) > 0 {
			t.Fatal(refused)
		}
		for _, d := range s.Diagnostics() {
			if d.Code == "invalid_object" || d.Code == "id_collision" {
				t.Error(d)
			}
		}
	})
}
