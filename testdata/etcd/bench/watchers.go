package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// watchers are many watches of one prefix, each on a connection of its own, as
// APISIX's are.
type watchers struct {
	count    int
	received atomic.Int64  // events, of all watchers
	changed  chan struct{} // capacity 1: a hint that received grew
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu  sync.Mutex
	err error // of the first watch that ended, guarded by mu
}

// hook is called for every event with the event's number at its watcher, from
// 0, by many goroutines at once.
type hook func(nth int, at time.Time)

// watch opens n watches and returns when the server has confirmed all.
func watch(ctx context.Context, address, protocol, prefix string, n int, onEvent hook) (*watchers, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watchers{count: n, changed: make(chan struct{}, 1), cancel: cancel}
	open := w.openGRPC
	if protocol == "HTTP" {
		open = w.openHTTP
	}
	// A few at a time: the listen queue is short.
	gate := make(chan struct{}, 50)
	created := make(chan error, n)
	for range n {
		gate <- struct{}{}
		w.wg.Go(func() {
			events := 0
			err := open(ctx, address, prefix, func() {
				created <- nil
				<-gate
			}, func(count int) {
				now := time.Now()
				if onEvent != nil {
					for range count {
						onEvent(events, now)
						events++
					}
				}
				w.received.Add(int64(count))
				select {
				case w.changed <- struct{}{}:
				default:
				}
			})
			if ctx.Err() == nil {
				w.fail(err)
				select {
				case created <- err:
				default:
				}
			}
		})
	}
	for range n {
		select {
		case err := <-created:
			if err != nil {
				w.close()
				return nil, fmt.Errorf("open %d %s watches: %w", n, protocol, err)
			}
		case <-ctx.Done():
			w.close()
			return nil, ctx.Err()
		}
	}
	return w, nil
}

func (w *watchers) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = errors.Join(errors.New("a watch ended"), err)
	}
}

func (w *watchers) close() {
	w.cancel()
	w.wg.Wait()
}

// waitFor waits until every watcher has received n events.
func (w *watchers) waitFor(ctx context.Context, n int) error {
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	for w.received.Load() < int64(n)*int64(w.count) {
		select {
		case <-w.changed:
		case <-timeout.C:
			w.mu.Lock()
			defer w.mu.Unlock()
			return errors.Join(w.err, fmt.Errorf("%d of %d events delivered after %v", w.received.Load(), n*w.count, startTimeout))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (w *watchers) openGRPC(ctx context.Context, address, prefix string, created func(), events func(int)) error {
	conn, err := dial(address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(prefix), RangeEnd: []byte(prefixEnd(prefix)),
	}}})
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	created()
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		events(len(message.GetEvents()))
	}
}

// eventMark occurs once in every event of the JSON form.
var eventMark = []byte(`"mod_revision"`)

func (w *watchers) openHTTP(ctx context.Context, address, prefix string, created func(), events func(int)) error {
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	response, err := post(ctx, &http.Client{Transport: transport}, address, "/v3/watch", map[string]any{
		"create_request": map[string]any{"key": []byte(prefix), "range_end": []byte(prefixEnd(prefix))},
	})
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	scanner := bufio.NewScanner(response.Body)
	scanner.Buffer(make([]byte, 8<<10), 256<<20)
	if !scanner.Scan() {
		return scanner.Err()
	}
	created()
	for scanner.Scan() {
		events(bytes.Count(scanner.Bytes(), eventMark))
	}
	return scanner.Err()
}
