package authn

import (
	"encoding/base64"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/translate"
	"meshbridge/translate/difftest"
	"meshbridge/translate/envoytest"
	"meshbridge/xds"
)

// What istiod makes of a RequestAuthentication, and of an AuthorizationPolicy on its claims, lets those
// pass whom Envoy lets pass. The recording asks for tokens of https://issuer.example.
func TestARecordedRequestAuthenticationIsEnforced(t *testing.T) {
	snap, rejected, err := xds.LoadFiles(filepath.FromSlash("../../../testdata/istiod/security-reviews-strict/xds"))
	if err != nil || len(rejected) > 0 {
		t.Fatal(err, rejected)
	}
	snap = withoutQuestions(t, snap)
	secret, err := base64.RawURLEncoding.DecodeString("AAAA") // as the recording has it
	if err != nil {
		t.Fatal(err)
	}
	options := translate.Options{Profile: translate.Mesh(), Internal: netip.MustParseAddrPort("127.0.0.1:15099"), InstanceIPs: []netip.Addr{netip.MustParseAddr("10.10.0.2")}}
	state, _, err := translate.Translate(options, snap, translate.Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	if len(state.Authentications()) == 0 {
		t.Fatalf("no tokens are verified: %v", state.Diagnostics())
	}
	h := newAsked(state.Authentications()...)
	w, err := difftest.NewWorldWith("recording", snap, options, func([]*translate.Authentication) difftest.Asked { return h.Ask })
	if err != nil {
		t.Fatal(err)
	}
	claims := func(change func(jwt.MapClaims)) string {
		c := jwt.MapClaims{"iss": "https://issuer.example", "sub": "me", "aud": "aud1", "exp": time.Now().Unix() + 1000}
		change(c)
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, c)
		token.Header["kid"] = "1"
		out, err := token.SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	tokens := map[string]string{
		"valid":           claims(func(jwt.MapClaims) {}),
		"expired":         claims(func(c jwt.MapClaims) { c["exp"] = time.Now().Unix() - 1000 }),
		"another issuer":  claims(func(c jwt.MapClaims) { c["iss"] = "https://other" }),
		"another's":       claims(func(c jwt.MapClaims) { c["aud"] = "aud2" }),
		"without subject": claims(func(c jwt.MapClaims) { delete(c, "sub") }),
		"no token":        "x",
	}
	report := difftest.NewReport()
	for _, c := range state.Chains() {
		if c.NotServed != "" || c.Key != "i:9080:tls" {
			continue
		}
		connection := envoytest.Connection{
			Direction: envoytest.Inbound, Destination: netip.MustParseAddrPort("10.10.0.2:9080"), Source: netip.MustParseAddrPort("10.1.2.3:1024"),
			TLS: true, ALPN: []string{"istio"},
			Certificate: &envoytest.Certificate{URIs: []string{"spiffe://cluster.local/ns/default/sa/client"}, Validated: true},
		}
		for _, path := range []string{"/reviews/1", "/admin", "/x/a/y", "/custom"} {
			for name, token := range tokens {
				for _, headers := range [][]envoytest.Header{
					{{Name: "x-jwt", Value: "Bearer " + token}},
					{{Name: "cookie", Value: "ck=" + token}},
					{{Name: "x-jwt", Value: "Bearer " + token}, {Name: "x-token", Value: "abc"}, {Name: "x-sub", Value: "forged"}, {Name: "te", Value: "11111"}},
					{{Name: "x-jwt", Value: "Bearer " + token}, {Name: "x-forwarded-for", Value: "1.2.3.4"}},
					{{Name: "authorization", Value: "Bearer " + token}, {Name: "x-forwarded-for", Value: "1.2.3.4"}},
				} {
					r := envoytest.Request{Connection: connection, Method: "GET", Host: "reviews:9080", Target: path, Headers: headers}
					before := len(report.Failures)
					w.Repeat(difftest.Failure{Chain: c.Key, Request: r}, report)
					if len(report.Failures) > before {
						t.Errorf("token %s: %s", name, report.Failures[before])
					}
				}
			}
		}
	}
	t.Log(report)
	if report.Explained["authorization_header_name"] > 0 {
		t.Error("requests are refused that Envoy lets pass")
	}
	if report.Outcomes[envoytest.Forward] == 0 || report.Outcomes[envoytest.Denied] == 0 {
		t.Error("nothing is allowed, or nothing denied")
	}
}

// withoutQuestions leaves out the filters that ask others, which Envoy's model does not know the answers of.
func withoutQuestions(t *testing.T, snap *xds.Snapshot) *xds.Snapshot {
	t.Helper()
	var put []*xds.Resource
	for r := range snap.All(xds.ListenerType) {
		l, err := xds.Decode[*listenerpb.Listener](r)
		if err != nil {
			t.Fatal(err)
		}
		l = proto.CloneOf(l)
		for _, chain := range l.GetFilterChains() {
			for _, f := range chain.GetFilters() {
				hcm := new(http_connection_managerpb.HttpConnectionManager)
				if f.GetTypedConfig().UnmarshalTo(hcm) != nil {
					continue
				}
				hcm.HttpFilters = slices.DeleteFunc(hcm.GetHttpFilters(), func(f *http_connection_managerpb.HttpFilter) bool {
					return strings.HasSuffix(f.GetName(), "ext_authz")
				})
				if err := f.GetTypedConfig().MarshalFrom(hcm); err != nil {
					t.Fatal(err)
				}
			}
		}
		body, err := anypb.New(l)
		if err != nil {
			t.Fatal(err)
		}
		put = append(put, &xds.Resource{Key: r.Key, Body: body})
	}
	return snap.With(put, nil)
}
