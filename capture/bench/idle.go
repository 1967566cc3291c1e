package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// settle is how long connections are idle before what they take is read: longer than what is kept for a
// next request.
const settle = 3 * time.Second

// compareIdle measures and prints what idle connections take. It comes before any load, of which memory would
// be left over.
func (o *options) compareIdle(ctx context.Context, out io.Writer, candidates []*process) error {
	_, _ = fmt.Fprintf(out, "\n%d idle connections\n\n| | memory per connection |\n|---|---:|\n", o.idle)
	for _, candidate := range candidates {
		if candidate.cmd == nil {
			continue
		}
		memory, err := o.idleMemory(ctx, candidate)
		if err != nil {
			return fmt.Errorf("%s: %w", candidate.name, err)
		}
		_, _ = fmt.Fprintf(out, "| %s | %.1f KB |\n", candidate.name, float64(memory)/1024)
	}
	return nil
}

// idleMemory returns how many bytes of memory a candidate has for each of many connections that have had a
// request and wait for the next.
func (o *options) idleMemory(ctx context.Context, p *process) (int, error) {
	before, err := p.resident()
	if err != nil {
		return 0, err
	}
	for range o.idle {
		conn, err := o.request(ctx, p)
		if err != nil {
			return 0, err
		}
		defer func() { _ = conn.Close() }()
	}
	timer := time.NewTimer(settle)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := p.resident()
	return (after - before) / o.idle, err
}

// request opens a connection and has one request answered.
func (o *options) request(ctx context.Context, p *process) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	if p.tls {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a certificate of our own
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		_ = conn.Close()
		return nil, err
	}
	// The response fits into a read of the buffer, and nothing follows it.
	r := bufio.NewReaderSize(conn, 512)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		if strings.TrimSpace(line) == "" {
			return conn, nil
		}
	}
}

// resident returns the memory of the process, in bytes.
func (p *process) resident() (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kilobytes := 0
	_, err = fmt.Sscan(rest, &kilobytes)
	return kilobytes << 10, err
}
