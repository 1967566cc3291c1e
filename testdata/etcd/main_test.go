package etcd

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

// patience bounds what must happen; it asserts no speed.
const patience = 30 * time.Second

// programs are built once, by TestMain.
var programs struct{ etcd, etcdctl, etcdutl, meshbridge string }

// The random tests make the same requests in every run, unless they are told
// otherwise.
var (
	seedFlag = flag.Uint64("seed", 1, "`seed` of the random tests; 0 picks one and prints it")
	opsFlag  = flag.Int("ops", 2500, "random requests of each comparison")
)

// randomness is the test's source of random numbers.
func randomness(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d -ops %d", seed, *opsFlag)
	name := fnv.New64a()
	_, _ = name.Write([]byte(t.Name())) // never fails
	return rand.New(rand.NewPCG(seed, name.Sum64()))
}

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, p := range []struct {
		path             *string
		env, module, pkg string
	}{
		{&programs.etcd, "ETCD", "v36", "go.etcd.io/etcd/server/v3"},
		{&programs.etcdctl, "ETCDCTL", "v36", "go.etcd.io/etcd/etcdctl/v3"},
		{&programs.etcdutl, "ETCDUTL", "v36", "go.etcd.io/etcd/etcdutl/v3"},
		{&programs.meshbridge, "MESHBRIDGE", filepath.Join("..", ".."), "./cmd/meshbridge"},
	} {
		if *p.path = os.Getenv(p.env); *p.path != "" {
			continue
		}
		*p.path = filepath.Join(dir, strings.ToLower(p.env))
		cmd := exec.Command("go", "build", "-o", *p.path, p.pkg)
		cmd.Dir = p.module
		if output, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", p.pkg, err, output)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// server is one of the two under comparison.
type server struct {
	name, address string
}

// startBoth runs an empty etcd and an empty meshbridge that counts revisions
// as etcd does.
func startBoth(t *testing.T) (etcd, meshbridge server) {
	t.Helper()
	return startEtcd(t), startMeshbridge(t)
}

// startEtcd runs an empty etcd with further arguments.
func startEtcd(t *testing.T, args ...string) server {
	t.Helper()
	client, peer := freeAddress(t), freeAddress(t)
	run(t, programs.etcd, "", append([]string{
		"--data-dir", t.TempDir(), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", "http://" + client, "--advertise-client-urls", "http://" + client,
		"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer,
		"--initial-cluster", "default=http://" + peer,
	}, args...)...)
	s := server{name: "etcd", address: client}
	// An etcd serves once it has elected itself.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := s.client(t).Get(ctx, "absent"); err != nil {
		t.Fatalf("etcd does not answer: %v", err)
	}
	return s
}

// startMeshbridge runs an empty meshbridge with further arguments.
func startMeshbridge(t *testing.T, args ...string) server {
	t.Helper()
	line := run(t, programs.meshbridge, "serving etcd", append([]string{
		"etcd", "--listen", "127.0.0.1:0", "--revision-base", "1", "--log-format", "json",
	}, args...)...)
	_, rest, _ := strings.Cut(line, `"address":"`)
	address, _, ok := strings.Cut(rest, `"`)
	if !ok {
		t.Fatalf("no address in %s", line)
	}
	return server{name: "meshbridge", address: address}
}

// run starts a program until the test ends and returns the first line of its
// stderr that contains a text, if one is asked for.
func run(t *testing.T, path, want string, args ...string) string {
	t.Helper()
	cmd := exec.Command(path, args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var (
		found  = make(chan string, 1)
		reader sync.WaitGroup
	)
	reader.Go(func() {
		for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
			if want != "" && strings.Contains(scanner.Text(), want) {
				select {
				case found <- scanner.Text():
				default:
				}
			}
		}
		close(found)
	})
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		reader.Wait()
		_ = cmd.Wait()
	})
	if want == "" {
		return ""
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case line := <-found:
		return line
	case <-timeout.C:
		t.Fatalf("%s: no line with %q within %v", path, want, patience)
		return ""
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func (s server) client(t *testing.T) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.address}, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}
