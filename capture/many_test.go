//go:build linux

package capture_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshbridge/capture"
	"meshbridge/translate"
)

// roleVariable tells a test that it is a process beside the one under test, and what it does there.
const roleVariable = "MESHBRIDGE_TEST_ROLE"

// mostConnections bounds what is opened where descriptors are without limit: not all local ports.
const mostConnections = 20_000

// beside runs a test again, in a role, in a process with descriptors of its own. The two talk in lines; the
// process ends when its input does.
func beside(t *testing.T, role string) (say func(string), hear func() string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env, cmd.Stderr = append(os.Environ(), roleVariable+"="+role), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	})
	lines := bufio.NewReader(out)
	return func(line string) {
			if _, err := io.WriteString(in, line+"\n"); err != nil {
				t.Fatalf("%s: %v", role, err)
			}
		}, func() string {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %q, %v", role, line, err)
			}
			return strings.TrimSpace(line)
		}
}

// serveBeside is the backend's process.
func serveBeside(t *testing.T) {
	t.Helper()
	b := serve(t, false, echo)
	_, _ = fmt.Fprintln(os.Stdout, b.addr)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// connectBeside is the client's process. It opens as many connections to an address as it is told, says
// so, and uses and closes them when it is told something again.
func connectBeside(t *testing.T) {
	t.Helper()
	lines := bufio.NewReader(os.Stdin)
	var address string
	var count int
	if _, err := fmt.Fscanln(lines, &address, &count); err != nil {
		t.Fatal(err)
	}
	conns := make([]net.Conn, count)
	for i := range conns {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(2 * patience))
		exchange(t, conn, "hello")
		conns[i] = conn
	}
	_, _ = fmt.Fprintln(os.Stdout, count)
	_, _ = lines.ReadString('\n')
	for _, conn := range conns {
		exchange(t, conn, "again")
		_ = conn.Close()
	}
	_, _ = fmt.Fprintln(os.Stdout, "done")
}

func TestManyConnectionsAtATime(t *testing.T) {
	switch os.Getenv(roleVariable) {
	case "backend":
		serveBeside(t)
		return
	case "client":
		connectBeside(t)
		return
	}
	// Each takes two descriptors of the server. Clients and the backend have a process each.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Skip(err)
	}
	count := int(min((limit.Cur-100)/2, mostConnections))
	if raceEnabled {
		count = min(count, 2000)
	} else if testing.Short() {
		count = min(count, 8000)
	}
	_, backend := beside(t, "backend")
	f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(time.Hour)))
	f.sends(netip.MustParseAddrPort(backend()))
	eventually(t, func() bool { return f.Addr("virtualoutbound") != nil })
	tell, client := beside(t, "client")
	tell(f.Addr("virtualoutbound").String() + " " + strconv.Itoa(count))
	if got := client(); got != strconv.Itoa(count) {
		t.Fatalf("the client has %q connections, want %d", got, count)
	}
	if n := f.Connections(); n != count {
		t.Errorf("%d connections, want %d", n, count)
	}
	t.Logf("%d connections at a time", count)
	tell("go on")
	client()
	eventually(t, func() bool { return f.Connections() == 0 })
}
