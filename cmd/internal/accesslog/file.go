package accesslog

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
	"time"
)

const (
	// writeSize is about how much is written to a file at once.
	writeSize = 64 << 10
	// writeAgain is how long after an error it is tried again.
	writeAgain = time.Second
)

// file appends lines to a file. One goroutine uses it.
type file struct {
	path string
	log  *slog.Logger
	// stream is written to instead of a file; nil for none.
	stream io.Writer

	open    *os.File
	info    fs.FileInfo // of open
	failing bool        // the last attempt has failed, which was said

	// lines is what is to be written next, and ends are where each entry ends in it. torn tells that a part of
	// the first has been written.
	lines []byte
	ends  []int
	torn  bool
}

func newFile(c *Config, path string) *file {
	f := &file{path: path, log: c.Logger}
	switch path {
	case "/dev/stdout":
		f.stream = c.Stdout
	case "/dev/stderr":
		f.stream = c.Stderr
	}
	return f
}

// run writes what a queue has until it is closed and empty, or ctx has ended.
func (f *file) run(ctx context.Context, q *queue) {
	defer f.close()
	var items []item
	for len(f.ends) > 0 || q.wait(ctx) {
		for len(f.lines) < writeSize {
			items = q.take(items[:0], 64)
			if len(items) == 0 {
				break
			}
			for _, i := range items {
				f.lines = append(f.lines, i.log.Line(i.entry)...)
				f.ends = append(f.ends, len(f.lines))
			}
			clear(items)
		}
		err := f.write(q)
		f.say(ctx, err)
		if err == nil {
			continue
		}
		if q.closing() || ctx.Err() != nil {
			q.counts.lost.Add(float64(len(f.ends)))
			return
		}
		q.pause(ctx, writeAgain)
	}
}

// write writes the lines. What of them is written is forgotten, also with an error.
func (f *file) write(q *queue) error {
	to := f.stream
	if to == nil {
		if err := f.reopen(q); err != nil {
			return err
		}
		to = f.open
	}
	n, err := to.Write(f.lines)
	f.wrote(q, n)
	return err
}

// wrote forgets the first n bytes.
func (f *file) wrote(q *queue, n int) {
	whole, last := 0, 0
	for whole < len(f.ends) && f.ends[whole] <= n {
		last = f.ends[whole]
		whole++
	}
	q.counts.written.Add(float64(whole))
	f.torn = n > last || f.torn && whole == 0
	f.drop(whole, n)
}

// drop forgets entries and the bytes before n.
func (f *file) drop(entries, n int) {
	f.lines = append(f.lines[:0], f.lines[n:]...)
	f.ends = append(f.ends[:0], f.ends[entries:]...)
	for i := range f.ends {
		f.ends[i] -= n
	}
}

// reopen opens the file, unless the open one still has its name. The rest of a line whose beginning is in
// another file is not written.
func (f *file) reopen(q *queue) error {
	if f.open != nil {
		now, err := os.Stat(f.path)
		if err == nil && os.SameFile(now, f.info) {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f.close()
	}
	// A named pipe without a reader is an error, and not waited for. Others may read what is logged, as with Envoy.
	next, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, 0o644) //nolint:gosec // see above
	if err != nil {
		return err
	}
	info, err := next.Stat()
	if err != nil {
		return errors.Join(err, next.Close())
	}
	f.open, f.info = next, info
	if f.torn {
		q.counts.lost.Inc()
		f.drop(1, f.ends[0])
		f.torn = false
	}
	return nil
}

func (f *file) close() {
	if f.open != nil {
		_ = f.open.Close()
		f.open = nil
	}
}

// say tells when it begins to fail, and when it works again.
func (f *file) say(ctx context.Context, err error) {
	failed := err != nil
	if failed == f.failing {
		return
	}
	f.failing = failed
	if failed {
		f.log.ErrorContext(ctx, "an access log cannot be written", slog.String("path", f.path), slog.Any("error", err))
	} else {
		f.log.InfoContext(ctx, "an access log is written again", slog.String("path", f.path))
	}
}
