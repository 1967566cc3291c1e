package authn

import (
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	jwtpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"

	"meshbridge/translate"
)

// asked serves the handler, as APISIX reaches it.
type asked struct {
	*Handler
	mux *http.ServeMux
}

func newAsked(list ...*translate.Authentication) asked {
	h := New(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	h.Set(list)
	mux := http.NewServeMux()
	mux.Handle("/authn/{key}", h)
	return asked{h, mux}
}

// answered is what the handler answers.
type answered struct {
	code   int
	header http.Header
	body   string
}

// ask asks about a request; headers are those that APISIX sends.
func (a asked) ask(key string, headers map[string]string) answered {
	r := httptest.NewRequest(http.MethodGet, "/authn/"+key, http.NoBody)
	for name, value := range map[string]string{headerMethod: "GET", headerScheme: "http", headerHost: "a.com", headerTarget: "/a?b=c"} {
		r.Header.Set(name, value)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	a.mux.ServeHTTP(w, r)
	return answered{w.Code, w.Header(), w.Body.String()}
}

// authentication reads a filter in JSON, with the JWKS where it says JWKS.
func authentication(tb testing.TB, filter, jwks string, claims ...string) *translate.Authentication {
	tb.Helper()
	a := &translate.Authentication{Key: "key", Filter: &jwtpb.JwtAuthentication{}, Headers: []string{"authorization", "x-payload", "x-sub", "x-nested", "x-n"}}
	filter = strings.ReplaceAll(filter, "JWKS", strings.ReplaceAll(jwks, `"`, `\"`))
	if err := protojson.Unmarshal([]byte(filter), a.Filter); err != nil {
		tb.Fatal(err)
	}
	a.Requirement = a.Filter.GetRules()[0].GetRequires()
	for _, c := range claims {
		m := &matcherpb.MetadataMatcher{}
		if err := protojson.Unmarshal([]byte(c), m); err != nil {
			tb.Fatal(err)
		}
		a.Claims = append(a.Claims, m)
	}
	return a
}

const optional = `{"providers": {"p": {"issuer": "https://issuer", "audiences": ["https://aud/", "other"], "local_jwks": {"inline_string": "JWKS"},
  "payload_in_metadata": "payload", "forward_payload_header": "x-payload", "normalize_payload_in_metadata": {"space_delimited_claims": ["scope"]},
  "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}, {"header_name": "x-nested", "claim_name": "a.b"}, {"header_name": "x-n", "claim_name": "n"}]}},
  "bypass_cors_preflight": true,
  "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [{"provider_name": "p"}, {"allow_missing": {}}]}}}]}`

// Answers are Envoy's, to the text, for every kind of token and signature.
func TestAnswersAreEnvoys(t *testing.T) {
	signers := newSigners(t)
	h := newAsked(authentication(t, optional, jwks(t, signers["rsa"], signers["pss"], signers["ec"], signers["ed"], signers["hmac"])))
	stranger := newSigners(t)
	now := time.Now().Unix()
	claims := func(change map[string]any) map[string]any {
		out := map[string]any{"iss": "https://issuer", "sub": "me", "aud": "aud", "exp": now + 100, "nbf": now - 100, "iat": now}
		maps.Copy(out, change)
		return out
	}
	type want struct {
		code   int
		body   string
		detail string
	}
	const invalid = `, error="invalid_token"`
	refused := func(body string) want { return want{401, body, invalid} }
	pass := want{code: 200}
	for _, test := range []struct {
		name, token string
		want        want
	}{
		{"none", "", pass},
		{"of another scheme", "Basic YTpi", pass},
		{"RSA", signers["rsa"].sign(t, claims(nil)), pass},
		{"RSA with PSS", signers["pss"].sign(t, claims(nil)), pass},
		{"elliptic curve", signers["ec"].sign(t, claims(nil)), pass},
		{"Ed25519", signers["ed"].sign(t, claims(nil)), pass},
		{"HMAC", signers["hmac"].sign(t, claims(nil)), pass},
		{"without a key id", signer{signers["ec"].algorithm, signers["ec"].private, ""}.sign(t, claims(nil)), pass},
		{"of several audiences", signers["ec"].sign(t, claims(map[string]any{"aud": []string{"x", "http://other/"}})), pass},
		{"just expired", signers["ec"].sign(t, claims(map[string]any{"exp": now - 50})), pass},
		{"expired", signers["ec"].sign(t, claims(map[string]any{"exp": now - 70})), refused("Jwt is expired")},
		{"from the future", signers["ec"].sign(t, claims(map[string]any{"nbf": now + 70})), refused("Jwt not yet valid")},
		{"for others", signers["ec"].sign(t, claims(map[string]any{"aud": "x"})), want{403, "Audiences in Jwt are not allowed", invalid}},
		{"without an audience", signers["ec"].sign(t, claims(map[string]any{"aud": []string{}})), want{403, "Audiences in Jwt are not allowed", invalid}},
		{"of another issuer", signers["ec"].sign(t, claims(map[string]any{"iss": "x"})), refused("Jwt issuer is not configured")},
		{"with another's signature", stranger["ec"].sign(t, claims(nil)), refused("Jwt verification fails")},
		{"with another's RSA signature", stranger["rsa"].sign(t, claims(nil)), refused("Jwt verification fails")},
		{"of a key that is not known", signer{signers["ec"].algorithm, signers["ec"].private, "x"}.sign(t, claims(nil)), refused("Jwks doesn't have key to match kid or alg from Jwt")},
		{"with the public key as a secret", signer{"HS256", []byte(jwks(t, signers["rsa"])), "rsa-1"}.sign(t, claims(nil)), refused("Jwks doesn't have key to match kid or alg from Jwt")},
		{"unsigned", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lzc3VlciJ9.YQ", refused("Jwt header [alg] is not supported")},
		{"no token", "abc", refused("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")},
		{"of two parts", "YQ..YQ", refused("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")},
		{"no base64", "YQ*.YQ.YQ", refused("Jwt header is an invalid Base64url encoded")},
		{"no JSON", "YQ.YQ.YQ", refused("Jwt header is an invalid JSON")},
		{"without an algorithm", "e30.YQ.YQ", refused("Jwt header [alg] field is required and must be a string")},
		{"with a number for a subject", signers["ec"].sign(t, claims(map[string]any{"sub": 1})), refused("Jwt payload [sub] field is not a string")},
		{"with a text for a time", signers["ec"].sign(t, claims(map[string]any{"exp": "1"})), refused("Jwt payload [exp] field is not an integer")},
		{"with a negative time", signers["ec"].sign(t, claims(map[string]any{"nbf": -1})), refused("Jwt payload [nbf] field is not a positive 64 bit integer")},
		{"with a number among audiences", signers["ec"].sign(t, claims(map[string]any{"aud": []any{1}})), refused("Jwt payload [aud] field is not a string or string list")},
		{"two lines", "a.b.c, Bearer " + signers["ec"].sign(t, claims(nil)), refused("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")},
	} {
		t.Run(test.name, func(t *testing.T) {
			headers := map[string]string{}
			if test.token != "" {
				headers["Authorization"] = "Bearer " + test.token
				if strings.HasPrefix(test.token, "Basic ") {
					headers["Authorization"] = test.token
				}
			}
			answer := h.ask("key", headers)
			if answer.code != test.want.code || answer.body != test.want.body {
				t.Errorf("%d %q, want %d %q", answer.code, answer.body, test.want.code, test.want.body)
			}
			challenge := ""
			if test.want.code != 200 {
				challenge = `Bearer realm="http://a.com/a?b=c"` + test.want.detail
			}
			if got := answer.header.Get("Www-Authenticate"); got != challenge {
				t.Errorf("challenge %s, want %s", got, challenge)
			}
		})
	}
}

// What a token says is passed on, and what a client says it says is not.
func TestHeadersOfATokenAreSetAndClientsCannotSetThem(t *testing.T) {
	s := newSigners(t)["ec"]
	h := newAsked(authentication(t, optional, jwks(t, s),
		`{"filter": "f", "path": [{"key": "payload"}, {"key": "sub"}], "value": {"string_match": {"prefix": "m"}}}`,
		`{"filter": "f", "path": [{"key": "payload"}, {"key": "a"}, {"key": "b"}], "value": {"bool_match": false}}`,
		`{"filter": "f", "path": [{"key": "payload"}, {"key": "scope"}], "value": {"or_match": {"value_matchers": [{"string_match": {"exact": "read"}}, {"list_match": {"one_of": {"string_match": {"exact": "read"}}}}]}}}`,
		`{"filter": "f", "path": [{"key": "payload"}, {"key": "none"}], "value": {"present_match": true}}`,
	))
	forged := map[string]string{"X-Payload": "forged", "X-Sub": "forged", "X-Nested": "forged", "Te": "1111"}
	token := s.sign(t, map[string]any{"iss": "https://issuer", "aud": "aud", "sub": "me", "a": map[string]any{"b": true}, "n": 12, "scope": "write read"})
	with := maps.Clone(forged)
	with["Authorization"] = "Bearer " + token
	for _, test := range []struct {
		name    string
		headers map[string]string
		want    map[string]string
	}{
		{"without a token", forged, map[string]string{"Te": "0000"}},
		{"with a token", with, map[string]string{
			"Te": "1010", "X-Sub": "me", "X-Nested": "true", "X-N": "12", "X-Payload": strings.Split(token, ".")[1],
		}},
		{"with credentials of another kind", map[string]string{"Authorization": "Basic YTpi"}, map[string]string{"Te": "0000", "Authorization": "Basic YTpi"}},
	} {
		answer := h.ask("key", test.headers)
		if answer.code != http.StatusOK {
			t.Fatalf("%s: %d", test.name, answer.code)
		}
		for _, name := range []string{"Te", "Authorization", "X-Sub", "X-Nested", "X-N", "X-Payload"} {
			if got := answer.header.Get(name); got != test.want[name] {
				t.Errorf("%s: %s is %q, want %q", test.name, name, got, test.want[name])
			}
		}
	}
}

// A preflight request has no token and needs none.
func TestPreflightRequestsPass(t *testing.T) {
	required := strings.Replace(optional, `, {"allow_missing": {}}`, "", 1)
	h := newAsked(authentication(t, required, jwks(t, newSigners(t)["ec"])))
	preflight := map[string]string{headerMethod: "OPTIONS", headerOrigin: "http://o", headerPreflight: "GET"}
	if got := h.ask("key", preflight).code; got != 200 {
		t.Errorf("a preflight request gets %d", got)
	}
	preflight[headerOrigin] = "" // as APISIX sends a header that is not there
	answer := h.ask("key", preflight)
	if got := answer.header.Get("Www-Authenticate"); answer.code != http.StatusUnauthorized || got != `Bearer realm="http://a.com/a?b=c"` {
		t.Errorf("another request gets %d, %s", answer.code, got)
	}
}

// A configuration that is gone is known until APISIX has no routes with it any more, and one that never
// was is refused.
func TestConfigurationsOutliveTheirRoutes(t *testing.T) {
	a := authentication(t, optional, jwks(t, newSigners(t)["ec"]))
	synctest.Test(t, func(t *testing.T) {
		h := newAsked(a)
		code := func() int { return h.ask("key", nil).code }
		if got := h.ask("another", nil).code; got != 403 {
			t.Errorf("an unknown one answers %d", got)
		}
		h.Set(nil)
		wait(t, keptFor-time.Second)
		h.Set(nil)
		if got := code(); got != 200 {
			t.Errorf("one that has just gone answers %d", got)
		}
		wait(t, time.Second)
		h.Set(nil)
		if got := code(); got != 403 {
			t.Errorf("one that is long gone answers %d", got)
		}
	})
}

// wait lets time pass.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	<-time.NewTimer(d).C
}
