package precheck

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meshbridge/translate/apisix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// expect compares the results of a check with STATUS: TEXT, in order.
func expect(t *testing.T, results []Result, want ...string) {
	t.Helper()
	matches := len(results) == len(want)
	for i := 0; matches && i < len(want); i++ {
		status, text, _ := strings.Cut(want[i], ": ")
		matches = string(results[i].Status) == status && strings.Contains(results[i].Check+" "+results[i].Found+" "+results[i].Do, text)
		if results[i].Status != OK && results[i].Do == "" {
			t.Errorf("%s: nothing is said about what to do", results[i].Check)
		}
	}
	if !matches {
		t.Errorf("the results are\n%+v\nwant\n%s", results, strings.Join(want, "\n"))
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTokens(t *testing.T) {
	now := time.Now()
	token := func(audience string, issued, expires time.Duration) string {
		payload := fmt.Sprintf(`{"aud":%s,"sub":"system:serviceaccount:shop:client","iat":%d,"exp":%d}`, audience, now.Add(issued).Unix(), now.Add(expires).Unix())
		return write(t, "token", "e30."+base64.RawURLEncoding.EncodeToString([]byte(payload))+".c2lnbmF0dXJl\n")
	}
	for file, want := range map[string][]string{
		token(`["istio-ca"]`, -time.Hour, time.Hour):     {"ok: system:serviceaccount:shop:client, expires in "},
		token(`"istio-ca"`, -time.Hour, -time.Minute):    {"fail: has expired "},
		token(`["istio-ca"]`, -time.Hour, time.Minute):   {"warn: see that it is renewed"},
		token(`["kubernetes"]`, -time.Hour, time.Hour):   {"ok: expires", `warn: it is for "kubernetes"`},
		token(`["istio-ca"]`, 30*time.Minute, time.Hour): {"ok: expires", "fail: clock"},
		write(t, "opaque", "hunter2"):                    {"warn: no JWT"},
		write(t, "broken", "a.!.c"):                      {"fail: the claims cannot be read"},
		filepath.Join(t.TempDir(), "none"):               {"fail: --xds-token-file"},
	} {
		results := Token(file)(t.Context())
		expect(t, results, want...)
		for _, r := range results {
			if strings.Contains(r.Found, "hunter2") {
				t.Error("the token itself is shown")
			}
		}
	}
}

func TestRootCertificatesThatCannotBeUsed(t *testing.T) {
	expect(t, Root(filepath.Join(t.TempDir(), "none"))(t.Context()), "fail: --xds-root-cert")
	expect(t, Root(write(t, "root.pem", "nothing"))(t.Context()), "fail: holds no certificate that is valid")
}

func TestPortsThatAreTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	expect(t, Ports([]Port{{"--listen", l.Addr().String()}, {"--admin", "127.0.0.1:0"}})(t.Context()),
		"fail: or change --listen", "ok: free: 127.0.0.1:0")
}

func TestDirectories(t *testing.T) {
	expect(t, Writable("state directory", t.TempDir(), "make it")(t.Context()), "ok: can be written")
	expect(t, Writable("state directory", filepath.Join(t.TempDir(), "none"), "make it")(t.Context()), "fail: make it")
}

func TestAPISIXOfAnotherVersion(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "conf"), 0o755); err != nil {
		t.Fatal(err)
	}
	program := write(t, "apisix", "#!/bin/sh\necho /usr/local/openresty//luajit/bin/luajit ./apisix/cli/apisix.lua version\necho 3.14.1\n")
	a := APISIX{Home: home, Program: program, OpenResty: program, Started: true, Version: apisix.Version{Major: 3, Minor: 14}}
	expect(t, a.Check(t.Context()), "ok: OpenResty", "ok: 3.14.1", "ok: can be written")
	a.Version.Minor = 18
	expect(t, a.Check(t.Context()), "ok: OpenResty", "fail: give --apisix-version 3.14", "ok: can be written")
	a.Version.Minor = 9
	expect(t, a.Check(t.Context()), "ok: OpenResty", "warn: give --apisix-version 3.14", "ok: can be written")
	a.Program, a.OpenResty = "/nonexistent/apisix", "/nonexistent/openresty"
	expect(t, a.Check(t.Context()), "fail: --openresty-bin", "fail: --apisix-bin", "ok: can be written")
	a.Home = filepath.Join(home, "none")
	expect(t, a.Check(t.Context()), "fail: --apisix-home")
	a.Started = false
	expect(t, a.Check(t.Context()), "ok: runs elsewhere")
}

func TestAConfigurationMayHaveMoreButNotLess(t *testing.T) {
	home := t.TempDir()
	conf := filepath.Join(home, "conf")
	if err := os.Mkdir(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	program := write(t, "apisix", "#!/bin/sh\necho 3.18.0\n")
	a := APISIX{
		Home: home, Program: program, Version: apisix.Version{Major: 3, Minor: 18},
		Configuration: []byte("apisix: {router: {http: radixtree_host_uri}, node_listen: [9080]}\nplugins: [a, b]\n"),
	}
	for text, want := range map[string]string{
		"apisix: {router: {http: radixtree_host_uri}, node_listen: [9080], id: x}\nplugins: [c, b, a]\n": "ok: is what the bridge needs",
		"apisix: {router: {http: radixtree_uri}, node_listen: [9080]}\nplugins: [a, b]\n":                "fail: apisix.router.http is radixtree_uri, want radixtree_host_uri",
		"apisix: {node_listen: [9081]}\nplugins: [a]\n":                                                  "fail: apisix.node_listen is [9081], want [9080]; apisix.router.http is <nil>, want radixtree_host_uri; plugins lacks b",
		"{": "fail: correct it",
	} {
		if err := os.WriteFile(filepath.Join(conf, "config.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		expect(t, a.Check(t.Context()), "ok: 3.18.0", want)
	}
}

func TestWhatIsFoundOnThisHost(t *testing.T) {
	results := Run(t.Context(), Redirection, User, Capabilities, Limits, IPv6(net.InterfaceAddrs))
	if len(results) != 5 || slices.ContainsFunc(results, func(r Result) bool { return r.Found == "" }) {
		t.Errorf("the results are %+v", results)
	}
	var b strings.Builder
	if err := Write(&b, results); err != nil || strings.Count(b.String(), "\n") != len(results) {
		t.Errorf("%v: not a line for each:\n%s", err, b.String())
	}
}
