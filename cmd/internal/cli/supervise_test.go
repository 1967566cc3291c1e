package cli

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"meshbridge/xds/xdstest"
)

// control is an istiod with a world.
func control(t *testing.T) *xdstest.Server {
	t.Helper()
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(2, 1).Resources()...)
	return istiod
}

// An APISIX that is up with an empty table answers 404 to everything.
func TestAPISIXIsStartedOnceThereIsAWorld(t *testing.T) {
	istiod := control(t)
	istiod.Stop()
	r := supervise(t, istiod, "", nil, nil)
	for _, port := range []string{"status", "metrics"} {
		if code, body := r.ask(http.MethodGet, port, "/healthz/ready"); code != http.StatusServiceUnavailable || !strings.Contains(body, "not been committed") {
			t.Errorf("%s port, before the first world: %d %s", port, code, body)
		}
	}
	if text := r.out.String(); strings.Contains(text, "stand-in") {
		t.Errorf("APISIX was started without a world:\n%s", text)
	}
	istiod.Start()
	r.waitReady()
	if text := r.out.String(); !strings.Contains(text, "stand-in: init\n") || !strings.Contains(text, "etcd has routes: true\n") {
		t.Errorf("it wrote:\n%s", text)
	}
	for _, port := range []string{"status", "metrics"} {
		if code, body := r.ask(http.MethodGet, port, "/healthz/ready"); code != http.StatusOK {
			t.Errorf("%s port: %d %s", port, code, body)
		}
	}
	if _, metrics := r.ask(http.MethodGet, "metrics", "/metrics"); !strings.Contains(metrics, "\nmeshbridge_startup_duration_seconds 0.") &&
		!strings.Contains(metrics, "\nmeshbridge_startup_duration_seconds 1") {
		t.Error("the time until it was ready is not measured")
	}
	r.signal(syscall.SIGTERM)
	if code := r.exit(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, r.out)
	}
}

func TestAPISIXThatCrashesEndsTheBridge(t *testing.T) {
	r := supervise(t, control(t), "crash", nil, nil)
	if code := r.exit(); code != exitError {
		t.Errorf("exit code %d", code)
	}
	if text := r.out.String(); !strings.Contains(text, "meshbridge: apisix: ended by itself: exit status 3\nstand-in: init\nnginx: [emerg] the last line\n") {
		t.Errorf("it wrote:\n%s", text)
	}
}

func TestAPISIXThatIsKilledEndsTheBridge(t *testing.T) {
	r := supervise(t, control(t), "", nil, nil)
	r.waitReady()
	if err := syscall.Kill(r.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := r.exit(); code != exitError || !strings.Contains(r.out.String(), "ended by itself: signal: killed") {
		t.Errorf("exit code %d:\n%s", code, r.out)
	}
}

func TestAPISIXThatHangsIsKilledInTheEnd(t *testing.T) {
	r := supervise(t, control(t), "hang", nil, nil, "--apisix-stop-time=200ms")
	r.waitReady()
	r.signal(syscall.SIGTERM)
	if code := r.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if text := r.out.String(); !strings.Contains(text, "stand-in: quit\n") || !strings.Contains(text, "APISIX was killed") {
		t.Errorf("it wrote:\n%s", text)
	}
	if err := syscall.Kill(r.pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("APISIX lives on: %v", err)
	}
}

// Each signal that asks for the end: others are served while they learn of it, and requests in flight end.
func TestTheBridgeEndsGracefully(t *testing.T) {
	t.Parallel()
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			r := supervise(t, control(t), "", nil, nil, "--drain-time=500ms")
			r.waitReady()
			r.signal(s)
			r.until(`msg=draining drain_time=500ms`)
			for _, port := range []string{"status", "metrics"} {
				if code, body := r.ask(http.MethodGet, port, "/healthz/ready"); code != http.StatusServiceUnavailable || body != "not ready: draining\n" {
					t.Errorf("%s port while draining: %d %s", port, code, body)
				}
			}
			if code, body := r.ask(http.MethodGet, "traffic", "/"); code != http.StatusOK {
				t.Errorf("traffic while draining: %d %s", code, body)
			}
			slow := make(chan string, 1)
			go func() {
				_, body := r.ask(http.MethodGet, "traffic", "/slow")
				slow <- body
			}()
			r.until(`stand-in: slow request`)
			if body := <-slow; body != "slow\n" {
				t.Errorf("the request in flight: %s", body)
			}
			if code := r.exit(); code != exitOK {
				t.Errorf("exit code %d", code)
			}
			if text := r.out.String(); strings.Count(text, "stand-in: quit\n") != 1 || strings.Contains(text, "stand-in: terminated") || !strings.Contains(text, "APISIX has stopped") {
				t.Errorf("it wrote:\n%s", text)
			}
		})
	}
}

// What ends the bridge at once does not wait for requests in flight.
func TestTheBridgeEndsAtOnce(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(r *running){
		"quit": func(r *running) {
			if code, body := r.ask(http.MethodPost, "metrics", "/quitquitquit"); code != http.StatusOK || body != "OK" {
				r.t.Errorf("%d %s", code, body)
			}
		},
		"quit while draining": func(r *running) {
			r.signal(syscall.SIGTERM)
			r.until(`msg=draining`)
			r.ask(http.MethodPost, "metrics", "/quitquitquit")
		},
		"second signal": func(r *running) {
			r.signal(syscall.SIGTERM)
			r.until(`msg=draining`)
			r.signal(syscall.SIGINT)
		},
		"native sidecar": func(r *running) {
			if code, body := r.ask(http.MethodPost, "metrics", "/drain"); code != http.StatusOK || body != "OK" {
				r.t.Errorf("%d %s", code, body)
			}
			r.until(`msg="draining until the process is told to end"`)
			if code, body := r.ask(http.MethodGet, "status", "/healthz/ready"); code != http.StatusServiceUnavailable {
				r.t.Errorf("ready: %d %s", code, body)
			}
			if code, body := r.ask(http.MethodGet, "traffic", "/"); code != http.StatusOK {
				r.t.Errorf("traffic of an application that goes on: %d %s", code, body)
			}
			r.signal(syscall.SIGTERM)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := supervise(t, control(t), "", nil, nil, "--drain-time=1h")
			r.waitReady()
			end(r)
			if code := r.exit(); code != exitOK {
				t.Errorf("exit code %d", code)
			}
			if text := r.out.String(); strings.Contains(text, "stand-in: quit\n") || !strings.Contains(text, "stand-in: terminated\n") {
				t.Errorf("it wrote:\n%s", text)
			}
		})
	}
}

func TestTheThirdSignalWaitsForNothing(t *testing.T) {
	r := supervise(t, control(t), "hang", nil, nil, "--drain-time=1h")
	r.waitReady()
	r.signal(syscall.SIGTERM)
	r.until(`msg=draining`)
	r.signal(syscall.SIGTERM)
	r.until(`stand-in: terminated`) // which it ignores, for a second
	r.signal(syscall.SIGTERM)
	if code := r.exit(); code != exitError {
		t.Errorf("exit code %d", code)
	}
}

func TestTheBridgeEndsWithTheLastConnection(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("connections are counted on Linux alone")
	}
	r := supervise(t, control(t), "", []string{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS=true", "MINIMUM_DRAIN_DURATION=10ms"}, nil, "--log-level=debug")
	r.waitReady()
	held, err := net.Dial("tcp", r.traffic)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	r.signal(syscall.SIGTERM)
	r.until(`msg="connections are open" .*connections=1`)
	if text := r.out.String(); strings.Contains(text, "stand-in: quit") {
		t.Errorf("it ends with a connection open:\n%s", text)
	}
	_ = held.Close()
	if code := r.exit(); code != exitOK || !strings.Contains(r.out.String(), "stand-in: quit\n") {
		t.Errorf("exit code %d:\n%s", code, r.out)
	}
}

// As the first process of a container the bridge waits for orphans, and for APISIX all the same.
func TestTheFirstProcessOfAContainerBuriesOrphans(t *testing.T) {
	namespace := []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if out, err := exec.CommandContext(t.Context(), namespace[0], append(namespace[1:], "true")...).CombinedOutput(); err != nil {
		if os.Getenv("REQUIRE_NETNS") == "1" {
			t.Fatalf("no PID namespace: %v %s", err, out)
		}
		t.Skipf("no PID namespace: %v %s", err, out)
	}
	r := supervise(t, control(t), "orphans", nil, namespace, "--log-level=debug")
	r.until(`msg="ready for traffic"`)
	r.until(`(?s)(?:msg="an orphan has ended".*){3}`)
	if code, body := r.ask(http.MethodPost, "metrics", "/quitquitquit"); code != http.StatusOK {
		t.Errorf("quit: %d %s", code, body)
	}
	if code := r.exit(); code != exitOK || !strings.Contains(r.out.String(), "APISIX has stopped") {
		t.Errorf("exit code %d:\n%s", code, r.out)
	}
}
