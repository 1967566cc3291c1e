package apisixprocess

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

// tailLines and tailWidth bound what is kept.
const (
	tailLines = 20
	tailWidth = 2 << 10
)

// tail keeps the last lines that were written to it.
type tail struct {
	mu      sync.Mutex
	lines   []string
	partial []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(b)
	for {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		if room := tailWidth - len(t.partial); room > 0 {
			t.partial = append(t.partial, line[:min(len(line), room)]...)
		}
		if !whole {
			return n, nil
		}
		t.lines = append(t.lines, string(t.partial))
		if len(t.lines) > tailLines {
			t.lines = t.lines[1:]
		}
		t.partial, b = t.partial[:0], rest
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	if len(t.partial) > 0 {
		lines = append(slices.Clip(lines), string(t.partial))
	}
	return strings.Join(lines, "\n")
}
