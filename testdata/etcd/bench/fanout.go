package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	fanoutPrefix = "/fanout/"
	fanoutValue  = 256
)

// fanoutSizes are numbers of watchers with the length of the burst that each
// size is given and the puts per second of the latency measurement.
var fanoutSizes = []struct{ watchers, burst, rate int }{
	{1, 5000, 20}, {100, 500, 20}, {1000, 100, 10}, {10_000, 20, 1},
}

func (o *options) measureFanout(ctx context.Context, dir string) error {
	t := table{
		title: fmt.Sprintf("Watch fan-out, %d B values, one connection per watcher", fanoutValue),
		header: []string{
			"server", "protocol", "watchers", "burst: events/s", "burst: server CPU µs per event",
			"low rate: p50 / p99 ms", "low rate: server CPU µs per event", "server RSS MB",
		},
	}
	for _, start := range o.servers() {
		for _, protocol := range []string{"gRPC", "HTTP"} {
			for _, size := range fanoutSizes {
				p, err := start(ctx, dir)
				if err != nil {
					return err
				}
				err = o.fanoutRow(ctx, p, protocol, size.watchers, size.burst, size.rate, &t)
				p.stop()
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil { // that many watchers can be too much for a server
					t.add(p.name, protocol, strconv.Itoa(size.watchers), "failed: "+err.Error(), "", "", "", "")
				}
			}
		}
	}
	t.print()
	return nil
}

func (o *options) fanoutRow(ctx context.Context, p *process, protocol string, n, burst, perSecond int, t *table) error {
	n, err := reachable(n)
	if err != nil {
		return err
	}
	conn, err := dial(p.address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	kv := pb.NewKVClient(conn)

	var m latencyMeter
	w, err := watch(ctx, p.address, protocol, fanoutPrefix, n, m.received)
	if err != nil {
		return err
	}
	defer w.close()

	low, lowCPU, err := o.lowRate(ctx, p, kv, w, &m, perSecond)
	if err != nil {
		return err
	}
	burstTime, burstCPU, err := putBurst(ctx, p, kv, w, low.puts, burst)
	if err != nil {
		return err
	}
	used, err := p.memory()
	if err != nil {
		return err
	}
	t.add(p.name, protocol, strconv.Itoa(n), rate(n*burst, burstTime), micros(burstCPU, n*burst),
		p50p99(low.latencies), micros(lowCPU, n*low.puts), megabytes(used.resident))
	return nil
}

// latencyMeter pairs the n-th event of each watcher with the n-th thing sent.
type latencyMeter struct {
	mu        sync.Mutex
	sent      []time.Time
	latencies []time.Duration
	closed    atomic.Bool
}

func (m *latencyMeter) send() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = append(m.sent, time.Now())
}

func (m *latencyMeter) received(nth int, at time.Time) {
	if m.closed.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if nth < len(m.sent) {
		m.latencies = append(m.latencies, at.Sub(m.sent[nth]))
	}
}

type lowRateResult struct {
	puts      int
	latencies []time.Duration
}

// lowRate puts at a steady pace, one after the other.
func (o *options) lowRate(ctx context.Context, p *process, kv pb.KVClient, w *watchers, m *latencyMeter, perSecond int) (lowRateResult, time.Duration, error) {
	value := make([]byte, fanoutValue)
	before, err := p.cpu()
	if err != nil {
		return lowRateResult{}, 0, err
	}
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	puts := max(int(o.per.Seconds()*float64(perSecond)), 5)
	for i := range puts {
		<-tick.C
		m.send()
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "%s%04d", fanoutPrefix, i%100), Value: value}); err != nil {
			return lowRateResult{}, 0, err
		}
	}
	if err := w.waitFor(ctx, puts); err != nil {
		return lowRateResult{}, 0, err
	}
	m.closed.Store(true)
	after, err := p.cpu()
	return lowRateResult{puts: puts, latencies: m.latencies}, after - before, err
}

// putBurst puts with eight clients as fast as it can and waits until every
// watcher has everything; already is what they had before.
func putBurst(ctx context.Context, p *process, kv pb.KVClient, w *watchers, already, n int) (wall, cpu time.Duration, err error) {
	const clients = 8
	value := make([]byte, fanoutValue)
	before, err := p.cpu()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	var (
		wg   sync.WaitGroup
		next atomic.Int64
		errs = make(chan error, clients)
	)
	for range clients {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if _, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "%s%04d", fanoutPrefix, i%100), Value: value}); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return 0, 0, err
	default:
	}
	if err := w.waitFor(ctx, already+n); err != nil {
		return 0, 0, err
	}
	wall = time.Since(start)
	after, err := p.cpu()
	return wall, after - before, err
}
