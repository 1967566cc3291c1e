//go:build unix

package apisixprocess

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output is written by the child and read by the test.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{}, 1)} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) waitFor(t *testing.T, text string) {
	t.Helper()
	timeout := time.NewTimer(30 * time.Second)
	defer timeout.Stop()
	for !strings.Contains(o.String(), text) {
		select {
		case <-o.changed:
		case <-timeout.C:
			t.Fatalf("no %q in %q", text, o.String())
		}
	}
}

// installation is a directory with programs that stand for APISIX's.
type installation struct {
	config Config
	out    *output
}

func install(t *testing.T, apisix, openresty string) *installation {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "conf"), 0o700); err != nil {
		t.Fatal(err)
	}
	program := func(name, script string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	i := &installation{out: newOutput()}
	i.config = Config{
		Home: dir, APISIX: program("apisix", apisix), OpenResty: program("openresty", openresty),
		Configuration: []byte("apisix: {}\n"), StopTime: 20 * time.Second, Stdout: i.out, Stderr: i.out,
		Logger: slog.New(slog.NewTextHandler(i.out, nil)),
	}
	return i
}

// run starts the process and returns how to end it at once and what Run returned.
func (i *installation) run(t *testing.T, start <-chan struct{}) (stop func(), ended <-chan error) {
	t.Helper()
	_, stop, ended = i.process(t, start)
	return stop, ended
}

func (i *installation) process(t *testing.T, start <-chan struct{}) (p *Process, stop func(), ended <-chan error) {
	t.Helper()
	p, err := New(i.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, start) }()
	return p, cancel, done
}

func started() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

const initialize = `test "$1" = init && cat conf/config.yaml && echo initialized`

func TestAPISIXStartsOnceThereIsSomethingToServe(t *testing.T) {
	i := install(t, initialize, `trap 'echo finished; exit 0' QUIT; echo serving "$@"; while :; do sleep 0.05; done`)
	start := make(chan struct{})
	p, _, ended := i.process(t, start)
	if _, err := os.Stat(filepath.Join(i.config.Home, "conf", "config.yaml")); err == nil {
		t.Error("the configuration was written before the start")
	}
	close(start)
	i.out.waitFor(t, "serving -p")
	if text := i.out.String(); !strings.Contains(text, "apisix: {}\ninitialized\n") || !strings.Contains(text, "daemon off;") {
		t.Errorf("it wrote %q", text)
	}
	if info, err := os.Stat(filepath.Join(i.config.Home, "conf", "config.yaml")); err != nil || info.Mode().Perm()&0o044 == 0 {
		t.Errorf("the configuration: %v, %v", info, err)
	}
	p.Finish(t.Context())
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if text := i.out.String(); !strings.Contains(text, "finished") || !strings.Contains(text, "APISIX has stopped") {
		t.Errorf("it wrote %q", text)
	}
}

func TestAPISIXThatEndsByItselfIsAnErrorWithItsLastLines(t *testing.T) {
	for name, script := range map[string]string{
		"failure": "echo nginx: emerg: bind failed; exit 3", "success": "echo nginx: emerg: bind failed; exit 0",
	} {
		t.Run(name, func(t *testing.T) {
			_, ended := install(t, initialize, script).run(t, started())
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "exit status") || !strings.Contains(err.Error(), "bind failed") {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestABadConfigurationIsAnErrorWithWhatAPISIXSays(t *testing.T) {
	_, ended := install(t, "echo failed to parse; exit 1", "echo serving").run(t, started())
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "failed to parse") {
		t.Errorf("the error is %v", err)
	}
}

func TestAPISIXThatHangsIsKilledWithItsWorkers(t *testing.T) {
	i := install(t, initialize, `trap '' QUIT; (trap '' QUIT; while :; do sleep 0.05; done) & echo worker $!; while :; do sleep 0.05; done`)
	i.config.StopTime = 200 * time.Millisecond
	p, _, ended := i.process(t, started())
	i.out.waitFor(t, "worker ")
	p.Finish(t.Context())
	if err := <-ended; err != nil {
		t.Error(err)
	}
	i.out.waitFor(t, "APISIX was killed")
	_, rest, _ := strings.Cut(i.out.String(), "worker ")
	worker := strings.Fields(rest)[0]
	// The kernel needs a moment to take a killed process away.
	for patience := time.Now().Add(30 * time.Second); time.Now().Before(patience); runtime.Gosched() {
		if state, err := os.ReadFile("/proc/" + worker + "/stat"); err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
	}
	t.Errorf("the worker %s lives on", worker)
}

func TestAPISIXThatIsToEndAtOnceDoesNotFinish(t *testing.T) {
	for name, script := range map[string]string{
		"ends":  `trap 'echo finishing' QUIT; trap 'echo ended; exit 0' TERM; echo serving; while :; do sleep 0.05; done`,
		"hangs": `trap 'echo finishing' QUIT; trap 'echo ended' TERM; echo serving; while :; do sleep 0.05; done`,
	} {
		t.Run(name, func(t *testing.T) {
			i := install(t, initialize, script)
			p, stop, ended := i.process(t, started())
			i.out.waitFor(t, "serving")
			go p.Finish(t.Context()) // which takes as long as StopTime
			i.out.waitFor(t, "finishing")
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			i.out.waitFor(t, "ended")
			if killed := strings.Contains(i.out.String(), "APISIX was killed"); killed != (name == "hangs") {
				t.Errorf("killed: %v", killed)
			}
		})
	}
}

func TestSocketsOfAKilledAPISIXAreNotInTheWay(t *testing.T) {
	i := install(t, initialize, `test ! -e logs/worker_events.sock && echo serving; exit 0`)
	logs := filepath.Join(i.config.Home, "logs")
	if err := os.Mkdir(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"worker_events.sock", "error.log"} {
		if err := os.WriteFile(filepath.Join(logs, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, ended := i.run(t, started())
	<-ended
	if !strings.Contains(i.out.String(), "serving") {
		t.Errorf("it wrote %q", i.out.String())
	}
	if _, err := os.Stat(filepath.Join(logs, "error.log")); err != nil {
		t.Error(err)
	}
}

func TestStoppedBeforeTheStart(t *testing.T) {
	i := install(t, initialize, "echo serving")
	stop, ended := i.run(t, make(chan struct{}))
	stop()
	if err := <-ended; err != nil || i.out.String() != "" {
		t.Errorf("%v, %q", err, i.out.String())
	}
	p, _, ended := i.process(t, make(chan struct{}))
	p.Finish(t.Context())
	if err := <-ended; err != nil || i.out.String() != "" {
		t.Errorf("%v, %q", err, i.out.String())
	}
}

func TestWrongPathsAreReportedAtOnce(t *testing.T) {
	i := install(t, initialize, "echo serving")
	bad := i.config
	bad.OpenResty = filepath.Join(bad.Home, "none")
	if _, err := New(bad); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a program that is not there: %v", err)
	}
	bad = i.config
	bad.Home = filepath.Join(bad.Home, "nowhere")
	if _, err := New(bad); err == nil || !strings.Contains(err.Error(), "--apisix-home") {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestReadyAsksAPISIX(t *testing.T) {
	status := http.StatusServiceUnavailable
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte("worker 2 has no configuration"))
	}))
	i := install(t, initialize, "echo serving")
	i.config.Status = server.URL
	p, err := New(i.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "worker 2") {
		t.Errorf("503: %v", err)
	}
	status = http.StatusOK
	if err := p.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	server.Close()
	if err := p.Ready(t.Context()); err == nil {
		t.Error("ready although nobody answers")
	}
}

func TestTheTailIsBounded(t *testing.T) {
	var kept tail
	for range 1000 {
		if _, err := kept.Write(bytes.Repeat([]byte("x"), 5000)); err != nil {
			t.Fatal(err)
		}
		if _, err := kept.Write([]byte("\nshort\nunfini")); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(kept.String()); n > (tailLines+1)*(tailWidth+1) || !strings.HasSuffix(kept.String(), "short\nunfini") {
		t.Errorf("%d bytes, ending in %q", n, kept.String()[n-20:])
	}
}
