package soak

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"meshbridge/testdata/conformance/harness"
)

// defaultLength is that of the test among all the others; SOAKTIME is another.
const defaultLength = time.Minute

func TestSoak(t *testing.T) {
	if os.Getenv(namespaceVariable) == "" {
		inNamespaces(t)
		return
	}
	length, seed := defaultLength, rand.Uint64N(1_000_000)
	var err error
	if text := os.Getenv("SOAKTIME"); text != "" {
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("SOAKTIME: %v", err)
		}
	}
	if text := os.Getenv("SEED"); text != "" && text != "0" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SEED: %v", err)
		}
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "timeline.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	out := io.Writer(log)
	if testing.Verbose() {
		out = io.MultiWriter(log, os.Stdout)
	}
	line := newTimeline(out)
	t.Logf("seed %d, for %v; the timeline and the programs' output are in %s", seed, length, dir)

	root := harness.NewAuthority(t, "mesh")
	authorities := filepath.Join(dir, "authorities")
	if err := os.Mkdir(authorities, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"root-cert.pem": root.PEM(), "ca-cert.pem": root.PEM(), "cert-chain.pem": root.PEM(), "ca-key.pem": root.KeyPEM(t),
	} {
		if err := os.WriteFile(filepath.Join(authorities, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var identities []tls.Certificate
	for s := range kubernetes {
		certificate, key := root.Issue(t, "spiffe://cluster.local/ns/default/sa/s"+strconv.Itoa(s))
		pair, err := tls.X509KeyPair([]byte(certificate+root.PEM()), []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		identities = append(identities, pair)
	}
	s, err := newSoak(dir, built, seed, line, authorities)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	group, inner := errgroup.WithContext(ctx)
	if err := serveBackends(inner, group, identities); err != nil {
		t.Fatal(err)
	}
	err = s.run(inner, length, seed)
	cancel()
	if err := errors.Join(err, group.Wait()); err != nil {
		t.Error(err)
	}
	if report := line.report(); report != "" {
		t.Errorf("SEED=%d SOAKTIME=%v make soak\n%s", seed, length, report)
	}
	if t.Failed() {
		t.Logf("kept: %s", dir)
		return
	}
	_ = os.RemoveAll(dir)
}

// inNamespaces runs the test again, in namespaces of its own: of mounts, for a disk that fills up; of the
// network, for fixed ports; of processes, so that nothing outlives it.
func inNamespaces(t *testing.T) {
	lacks := t.Skip
	if os.Getenv("REQUIRE_NETNS") != "" {
		lacks = t.Fatal
	}
	for _, program := range []string{"unshare", "ip", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			lacks("needs", program)
		}
	}
	namespaces := []string{"--mount", "--propagation", "private", "--net", "--pid", "--kill-child", "--mount-proc"}
	if err := exec.Command("unshare", append(namespaces, "true")...).Run(); err != nil {
		lacks("needs namespaces (root): ", err)
	}
	dir := t.TempDir()
	for name, path := range map[string]string{
		"meshbridge": built.Bridge, "meshbridge-skewed": built.Skewed, "istiod": built.Istiod, "standin": built.Standin,
	} {
		if path == "" {
			continue
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	arguments := append(namespaces, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.timeout", "2h")
	if testing.Verbose() {
		arguments = append(arguments, "-test.v")
	}
	cmd := exec.Command("unshare", arguments...)
	cmd.Env = append(os.Environ(), namespaceVariable+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: see above", err)
	}
}
