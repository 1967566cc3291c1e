package etcd

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// etcdctl check perf writes for a minute and then judges the server. Its
// verdicts depend on the machine; that it comes to them, has written what it
// meant to, and tidies up after itself does not.
func TestEtcdctlChecksPerformance(t *testing.T) {
	t.Parallel()
	s := startMeshbridge(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+2*patience)
	defer cancel()
	// The exit code is part of the verdict.
	output, err := exec.CommandContext(ctx, programs.etcdctl, "--endpoints", s.address, "check", "perf", "--load", "s").CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("etcdctl check perf did not end: %v\n%s", err, output)
	}
	for _, verdict := range []string{`(PASS|FAIL): Throughput`, `(PASS|FAIL): Slowest request`, `(PASS|FAIL): Stddev`} {
		if !regexp.MustCompile(verdict).Match(output) {
			t.Errorf("no verdict %q in\n%s", verdict, output)
		}
	}
	for _, failure := range []string{"FAIL: ERROR", "FAIL: Cleanup"} {
		if strings.Contains(string(output), failure) {
			t.Errorf("requests failed:\n%s", output)
		}
	}
	response, err := s.client(t).Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	const written = 1000 // of the 9,000 it means to write in a minute
	if response.Count != 0 || response.Header.GetRevision() < written {
		t.Errorf("%d keys are left, revision %d", response.Count, response.Header.GetRevision())
	}
	t.Logf("%s", output)
}
