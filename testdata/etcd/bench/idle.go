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
		title:  "Idle watchers, one connection each",
		header: []string{"server", "protocol", "watchers", "KB per watcher", "CPU % of a core"},
	}
	for _, start := range o.servers() {
		for _, protocol := range []string{"gRPC", "HTTP"} {
			for _, n := range []int{1000, 10_000} {
				if err := o.idleRow(ctx, dir, start, protocol, n, &t); err != nil {
					return err
				}
			}
		}
	}
	t.print()
	return nil
}

func (o *options) idleRow(
	ctx context.Context, dir string, start func(context.Context, string) (*process, error), protocol string, n int, t *table,
) error {
	n, err := reachable(n)
	if err != nil {
		return err
	}
	p, err := start(ctx, dir)
	if err != nil {
		return err
	}
	defer p.stop()
	empty, err := p.memory()
	if err != nil {
		return err
	}
	open := openBareWatches
	if protocol == "gRPC" {
		open = openGRPCWatches
	}
	closeAll, err := open(ctx, p.address, n)
	defer closeAll()
	if err != nil {
		return err
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
	full, err := p.memory()
	if err != nil {
		return err
	}
	t.add(p.name, protocol, strconv.Itoa(n), fmt.Sprintf("%.1f", float64(full.resident-empty.resident)/1024/float64(n)),
		fmt.Sprintf("%.2f", 100*(after-before).Seconds()/o.per.Seconds()))
	return nil
}

// reachable returns how many of n connections this process may open. The
// servers' limit is the same.
func reachable(n int) (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	const others = 200
	return min(n, int(limit.Cur)-others), nil
}

func openGRPCWatches(ctx context.Context, address string, n int) (closeAll func(), err error) {
	w, err := watch(ctx, address, "gRPC", "/apisix/", n, nil)
	if err != nil {
		return func() {}, err
	}
	return w.close, nil
}

// openBareWatches uses sockets and no HTTP client, to spare this process.
func openBareWatches(_ context.Context, address string, n int) (closeAll func(), err error) {
	connections := make([]net.Conn, 0, n)
	closeAll = func() {
		for _, c := range connections {
			_ = c.Close()
		}
	}
	for range n {
		c, err := openBareWatch(address)
		if err != nil {
			return closeAll, fmt.Errorf("watcher %d of %d: %w", len(connections)+1, n, err)
		}
		connections = append(connections, c)
	}
	return closeAll, nil
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
