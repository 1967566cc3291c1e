package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// measureIdle counts what watchers cost that have nothing to watch.
func (o *options) measureIdle(ctx context.Context, dir string) error {
	t := table{
		title:  "Idle HTTP watchers",
		header: []string{"server", "watchers", "KB per watcher", "CPU % of a core"},
	}
	for _, start := range []func(context.Context, string) (*process, error){o.startEtcd, o.startStore} {
		for _, n := range []int{1000, 10_000} {
			if err := o.idleRow(ctx, dir, start, n, &t); err != nil {
				return err
			}
		}
	}
	t.print()
	return nil
}

func (o *options) idleRow(ctx context.Context, dir string, start func(context.Context, string) (*process, error), n int, t *table) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if uint64(n)+100 > limit.Cur {
		t.add("any", strconv.Itoa(n), fmt.Sprintf("not measured: %d open files allowed", limit.Cur), "")
		return nil
	}
	p, err := start(ctx, dir)
	if err != nil {
		return err
	}
	defer p.stop()
	empty, _, err := p.memory()
	if err != nil {
		return err
	}
	// Bare sockets: the watchers must not cost this process more than the server.
	connections := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range connections {
			_ = c.Close()
		}
	}()
	for range n {
		c, err := openBareWatch(p.address)
		if err != nil {
			return fmt.Errorf("watcher %d of %d: %w", len(connections)+1, n, err)
		}
		connections = append(connections, c)
	}
	before, err := p.cpu()
	if err != nil {
		return err
	}
	if err := sleep(ctx, o.per); err != nil {
		return err
	}
	after, err := p.cpu()
	if err != nil {
		return err
	}
	full, _, err := p.memory()
	if err != nil {
		return err
	}
	t.add(p.name, strconv.Itoa(n), fmt.Sprintf("%.1f", float64(full-empty)/1024/float64(n)),
		fmt.Sprintf("%.2f", 100*(after-before).Seconds()/o.per.Seconds()))
	return nil
}

func openBareWatch(address string) (net.Conn, error) {
	const body = `{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA="}}`
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	request := fmt.Sprintf("%s /v3/watch HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", http.MethodPost, address, len(body), body)
	if _, err := c.Write([]byte(request)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	var answer strings.Builder
	buffer := make([]byte, 2048)
	for !strings.Contains(answer.String(), `"created":true`) {
		read, err := c.Read(buffer)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		answer.Write(buffer[:read])
	}
	return c, nil
}
