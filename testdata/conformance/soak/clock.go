package soak

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// skewVariable is the environment variable of a program that buildSkewed made: a file with what its wall
// clock is ahead by, in seconds.
const skewVariable = "CLOCK_SKEW"

// skewSource is added to package time.
const skewSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var ahead = openSkew()

func openSkew() *int64 {
	name, ok := syscall.Getenv("` + skewVariable + `")
	if !ok {
		return new(int64)
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic(name + ": " + err.Error())
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(name + ": " + err.Error())
	}
	_ = syscall.Close(fd)
	return (*int64)(unsafe.Pointer(&page[0]))
}

func skew() int64 { return atomic.LoadInt64(ahead) }
`

// buildSkewed builds the bridge with a wall clock that can be set, for it alone, while it runs: as when a
// machine's clock is set, all of the program sees it, TLS and gRPC included, and the monotonic clock and
// timers go on. That is done to the standard library, by the compiler's overlay, so that the bridge needs
// no seam for it.
func buildSkewed(ctx context.Context, module, dir string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("GOROOT: %w", err)
	}
	library := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return "", err
	}
	const clock = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if bytes.Count(text, []byte(clock)) != 1 {
		return "", errors.New("this release of Go has another time.Now: adapt the overlay")
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, content := range map[string]string{
		"time.go": strings.Replace(string(text), clock, clock+"\tsec += skew()\n", 1),
		"skew.go": skewSource,
	} {
		overlay.Replace[filepath.Join(library, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "meshbridge-skewed")
	build := exec.CommandContext(ctx, "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./cmd/meshbridge")
	build.Dir = module
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with a clock that can be set: %w\n%s", err, output)
	}
	return program, nil
}

// clock sets the wall clock of programs.
type clock struct {
	file string
	page []byte
}

func newClock(file string) (*clock, error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(8); err != nil {
		return nil, err
	}
	page, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("clock: %w", err)
	}
	return &clock{file, page}, nil
}

// set puts the clock ahead of the machine's, or behind it.
func (c *clock) set(ahead time.Duration) {
	binary.NativeEndian.PutUint64(c.page, uint64(int64(ahead/time.Second)))
}

func (c *clock) environment() string { return skewVariable + "=" + c.file }

func (c *clock) close() error { return syscall.Munmap(c.page) }
