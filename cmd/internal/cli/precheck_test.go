package cli

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"meshbridge/cmd/internal/precheck"
	"meshbridge/xds/xdstest"
)

// free are flags that ask for ports which are free anywhere.
func free(args ...string) []string {
	return append(args,
		"--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--status=127.0.0.1:0", "--metrics=off", "--internal=127.0.0.1:0",
		"--apisix-home=/nonexistent", "--node-id=sidecar~10.0.0.1~client.shop~shop.svc.cluster.local")
}

func TestPrecheckGoesAllTheWayToIstiod(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(3, 1).Resources()...)
	code, out, errs := command(t, nil, free("precheck", "--xds", "grpc://"+istiod.Addr(), "-o", "json")...)
	var results []precheck.Result
	if err := json.Unmarshal([]byte(out), &results); err != nil || code != exitOK {
		t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
	}
	found := map[string]precheck.Result{}
	for _, r := range results {
		found[r.Check] = r
	}
	for _, check := range []string{"istiod", "xDS", "ports", "open files", "user", "redirection", "IPv6", "APISIX"} {
		if r, ok := found[check]; !ok || r.Status == precheck.Fail {
			t.Errorf("%s: %+v", check, r)
		}
	}
	// Files are read as well.
	dir, err := filepath.Abs("../../../testdata/istiod/bookinfo-client/xds")
	if err != nil {
		t.Fatal(err)
	}
	if code, out, errs := command(t, nil, free("precheck", "--xds", "file:"+dir)...); code != exitOK || !strings.Contains(out, "ok    xDS files ") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

func TestPrecheckSaysWhatToDo(t *testing.T) {
	istiod := xdstest.NewServer(t)
	address := istiod.Addr()
	istiod.Stop()
	code, out, _ := command(t, nil, free("precheck", "--xds", "grpcs://"+address, "--xds-token-file=/nonexistent/token", "--xds-root-cert=/nonexistent/root")...)
	for _, want := range []string{
		"fail  token ", "--xds-token-file\n", "fail  root certificate ", "fail  istiod ", "NetworkPolicies",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if code != exitError {
		t.Errorf("exit code %d", code)
	}
	if code, _, errs := command(t, nil, free("precheck")...); code != exitUsage || !strings.Contains(errs, "--xds") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if code, _, errs := command(t, nil, free("precheck", "--xds=file:.", "-o", "xml")...); code != exitUsage {
		t.Errorf("exit code %d: %s", code, errs)
	}
}
