package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meshbridge/xds/xdstest"
)

// role, in the environment, makes the tests' program another one: the bridge, or what stands in for the
// programs of APISIX.
const role = "CLI_TEST_ROLE"

// play is the program in that role, and does not return; without one it does.
func play(as string) {
	switch as {
	case "bridge":
		os.Exit(Execute("v0.0.0-test", append([]string{"meshbridge"}, os.Args[1:]...), os.Stdout, os.Stderr))
	case "apisix":
		say("init")
		os.Exit(0)
	case "openresty":
		os.Exit(openResty())
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stdout, "stand-in: "+format+"\n", args...) }

// Where the stand-in listens, and how it behaves: "crash" ends at once, "hang" ignores signals, "orphans"
// leaves processes behind.
const (
	standInStatus  = "STANDIN_STATUS"
	standInTraffic = "STANDIN_TRAFFIC"
	standInMode    = "STANDIN_MODE"
)

// openResty stands in for the server: it has APISIX's status, a port for traffic, where /slow takes a second,
// and nginx's signals.
func openResty() int {
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGINT)
	switch os.Getenv(standInMode) {
	case "crash":
		fmt.Fprintln(os.Stderr, "nginx: [emerg] the last line")
		return 3
	case "orphans":
		for range 3 {
			// The shell dies at once, its child a moment later.
			if err := exec.CommandContext(context.Background(), "sh", "-c", "sleep 0.2 & echo stand-in: orphan $!").Run(); err != nil {
				return 4
			}
		}
	}
	routes, err := routesIn("conf/config.yaml")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 4
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		say("slow request")
		timer := time.NewTimer(time.Second)
		<-timer.C
		_, _ = io.WriteString(w, "slow\n")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	var servers []*http.Server
	for _, address := range []string{os.Getenv(standInStatus), os.Getenv(standInTraffic)} {
		var lc net.ListenConfig
		l, err := lc.Listen(context.Background(), "tcp", address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 4
		}
		s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
		servers = append(servers, s)
		go func() { _ = s.Serve(l) }()
	}
	say("serving, etcd has routes: %t", routes)
	for s := range signals {
		say("%s", s)
		switch {
		case os.Getenv(standInMode) == "hang":
		case s == syscall.SIGQUIT:
			for _, server := range servers {
				_ = server.Shutdown(context.Background())
			}
			return 0
		default:
			return 0
		}
	}
	return 0
}

// routesIn tells whether the etcd that a configuration names has routes.
func routesIn(config string) (bool, error) {
	text, err := os.ReadFile(config)
	if err != nil {
		return false, err
	}
	etcd := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).Find(text)
	// From /apisix/routes/ to /apisix/routes0.
	const body = `{"key":"L2FwaXNpeC9yb3V0ZXMv","range_end":"L2FwaXNpeC9yb3V0ZXMw"}`
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, string(etcd)+"/v3/kv/range", strings.NewReader(body))
	if err != nil {
		return false, err
	}
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		return false, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	return bytes.Contains(answer, []byte(`"kvs"`)), err
}

// running is the bridge as a process of its own, which supervises the stand-in.
type running struct {
	t       *testing.T
	cmd     *exec.Cmd
	out     *lines
	traffic string // address of the stand-in
	pid     int    // of the stand-in, once it runs
}

// lines are what a process writes.
type lines struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // has room for one
}

// Write implements io.Writer.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	select {
	case l.changed <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// patience bounds what only a failing test waits for.
const patience = 30 * time.Second

// until waits for what the pattern matches in what the bridge writes, and returns its first group.
func (r *running) until(pattern string) string {
	r.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for expression := regexp.MustCompile(pattern); ; {
		if m := expression.FindStringSubmatch(r.out.String()); m != nil {
			return m[len(m)-1]
		}
		select {
		case <-r.out.changed:
		case <-timeout.C:
			r.t.Fatalf("no %s in:\n%s", pattern, r.out)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// supervise starts the bridge, under the program before it where there is one.
func supervise(t *testing.T, istiod *xdstest.Server, mode string, environment []string, before []string, flags ...string) *running {
	t.Helper()
	home := t.TempDir()
	for _, dir := range []string{"conf", "logs"} {
		if err := os.Mkdir(filepath.Join(home, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	program := func(name string) string {
		path := filepath.Join(home, name)
		script := fmt.Sprintf("#!/bin/sh\n%s=%s exec %s \"$@\"\n", role, name, os.Args[0])
		if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	status, traffic := freeAddress(t), freeAddress(t)
	_, port, err := net.SplitHostPort(traffic)
	if err != nil {
		t.Fatal(err)
	}
	args := append(slices.Clone(before), os.Args[0], "run", "--mode=sidecar", "--profile=direct", "--xds=grpc://"+istiod.Addr(),
		"--node-id=sidecar~10.9.0.1~client.default~default.svc.cluster.local", "--dns-servers=off", "--internal=off", "--log-format=text",
		"--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--status=127.0.0.1:0", "--metrics=127.0.0.1:0",
		"--apisix-home="+home, "--apisix-bin="+program("apisix"), "--openresty-bin="+program("openresty"),
		"--apisix-status="+status, "--apisix-outbound-port="+port, "--drain-time=0s")
	args = append(args, flags...)
	r := &running{t: t, out: &lines{changed: make(chan struct{}, 1)}, traffic: traffic}
	r.cmd = exec.Command(args[0], args[1:]...)
	r.cmd.Env = append(os.Environ(), role+"=bridge", standInMode+"="+mode, standInStatus+"="+status, standInTraffic+"="+traffic)
	// A program with the race detector sleeps for a second before it ends otherwise.
	r.cmd.Env = append(r.cmd.Env, "GORACE=atexit_sleep_ms=0")
	r.cmd.Env = append(r.cmd.Env, environment...)
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
		}
		if r.pid != 0 {
			_ = syscall.Kill(-r.pid, syscall.SIGKILL)
		}
	})
	return r
}

func (r *running) waitReady() {
	r.t.Helper()
	r.until(`msg="ready for traffic"`)
	pid, err := strconv.Atoi(r.until(`msg="APISIX is running".* pid=(\d+)`))
	if err != nil {
		r.t.Fatal(err)
	}
	r.pid = pid
}

func (r *running) signal(s os.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// exit waits for the end and returns the exit code.
func (r *running) exit() int {
	r.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = r.cmd.Process.Kill() })
	defer timer.Stop()
	err := r.cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		r.t.Fatal(err)
	}
	return r.cmd.ProcessState.ExitCode()
}

// ask sends a request to one of the bridge's ports, or to the traffic's.
func (r *running) ask(method, port, path string) (code int, body string) {
	r.t.Helper()
	address := r.traffic
	if port != "traffic" {
		address = r.until(`msg="serving ` + port + `" address=(\S+)`)
	}
	request, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+address+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}
