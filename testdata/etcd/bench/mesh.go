package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"meshbridge/xds/xdstest"
)

const (
	endpointsPerService = 5
	apisixPrefix        = "/apisix/"
	manyServices        = 10_000
)

// server is a scripted management server outside of a test. The method set of
// testing.TB can only be had by embedding it; those that the server calls are
// implemented below.
type server struct {
	*xdstest.Server

	stop func()
}

type standIn struct {
	testing.TB // nil

	mu       sync.Mutex
	cleanups []func()
}

func (*standIn) Helper() {}

func (*standIn) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (s *standIn) Errorf(format string, args ...any) { s.Logf(format, args...) }

func (*standIn) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (*standIn) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (*standIn) Context() context.Context { return context.Background() }

func (s *standIn) Cleanup(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, fn)
}

func startServer(services int) server {
	t := &standIn{}
	s := server{Server: xdstest.NewServer(t), stop: func() {
		for _, fn := range t.cleanups {
			fn()
		}
	}}
	s.Set(xdstest.Mesh(services, endpointsPerService).Resources()...)
	return s
}

// bridge is a meshbridge under measurement.
type bridge struct {
	*process

	// sinceReceived is from the arrival of the bytes to the commit, in the
	// bridge's own words.
	sinceReceived time.Duration
	// started is from the start of the process to that.
	started time.Duration
}

func (o *options) startBridge(ctx context.Context, xds string) (*bridge, error) {
	begin := time.Now()
	p, err := spawn("meshbridge", o.meshbridge, "run", "--xds", "grpc://"+xds, "--listen", "127.0.0.1:0", "--admin", "off",
		"--status", "off", "--metrics", "off", "--internal", "off", "--log-format", "json",
		"--node-id", "sidecar~10.0.0.1~client.default~default.svc.cluster.local")
	if err != nil {
		return nil, err
	}
	b := &bridge{process: p}
	if err := b.findAddress(ctx, "serving etcd"); err != nil {
		return nil, err
	}
	line, err := b.waitLine(ctx, `"msg":"ready"`)
	if err != nil {
		return nil, err
	}
	b.started = time.Since(begin)
	var ready struct {
		SinceReceived time.Duration `json:"since_received"`
	}
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		return nil, fmt.Errorf("%w in %s", err, line)
	}
	b.sinceReceived = ready.SinceReceived
	return b, nil
}

// measureSync starts the bridge against meshes of several sizes.
func (o *options) measureSync(ctx context.Context, _ string) error {
	t := table{
		title: fmt.Sprintf("First sync of the bridge, %d endpoints per service", endpointsPerService),
		header: []string{
			"services", "bytes arrived → served ms", "process start → served ms", "CPU s", "objects", "their JSON MB",
			"RSS MB after 10 s", "of it pages of the binary", "peak RSS MB", "idle CPU % of a core",
		},
	}
	for _, n := range o.services {
		if err := o.syncRow(ctx, n, &t); err != nil {
			return fmt.Errorf("%d services: %w", n, err)
		}
	}
	t.print()
	return nil
}

func (o *options) syncRow(ctx context.Context, services int, t *table) error {
	s := startServer(services)
	defer s.stop()
	b, err := o.startBridge(ctx, s.Addr())
	if err != nil {
		return err
	}
	defer b.stop()
	synced, err := b.cpu()
	if err != nil {
		return err
	}
	// The garbage of the first sync is gone after some seconds; then nothing
	// happens.
	const settle, quiet = 5 * time.Second, 5 * time.Second
	var idle [2]time.Duration
	for i, pause := range []time.Duration{settle, quiet} {
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		if idle[i], err = b.cpu(); err != nil {
			return err
		}
	}
	used, err := b.memory()
	if err != nil {
		return err
	}
	objects, err := countKeys(ctx, b.address, apisixPrefix)
	if err != nil {
		return err
	}
	size, err := rangeHTTP(ctx, b.address, apisixPrefix)
	if err != nil {
		return err
	}
	t.add(strconv.Itoa(services), millis(b.sinceReceived), millis(b.started), fmt.Sprintf("%.2f", synced.Seconds()), strconv.FormatInt(objects, 10),
		fmt.Sprintf("%.1f", float64(size)/(1<<20)), megabytes(used.resident), megabytes(used.program), megabytes(used.peak),
		fmt.Sprintf("%.2f", 100*(idle[1]-idle[0]).Seconds()/quiet.Seconds()))
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// measureEndpoints changes the endpoints of one service after the other.
func (o *options) measureEndpoints(ctx context.Context, _ string) error {
	t := table{
		title: fmt.Sprintf("Endpoint change of one among %d services: sent by the control plane → event at the watcher", manyServices),
		header: []string{
			"protocol", "watchers", "p50 / p99 ms", "events per change", "server CPU µs per change", "back to back: changes/s", "server CPU µs per change",
		},
	}
	s := startServer(manyServices)
	defer s.stop()
	b, err := o.startBridge(ctx, s.Addr())
	if err != nil {
		return err
	}
	defer b.stop()
	if err := sleep(ctx, 3*time.Second); err != nil { // the first sync's garbage
		return err
	}
	var changes endpointChanges
	for _, protocol := range []string{"gRPC", "HTTP"} {
		for _, n := range []int{1, 1000} {
			if err := o.endpointRow(ctx, s, b, &changes, protocol, n, &t); err != nil {
				return fmt.Errorf("%s, %d watchers: %w", protocol, n, err)
			}
		}
	}
	t.print()
	return nil
}

func (o *options) endpointRow(ctx context.Context, s server, b *bridge, next *endpointChanges, protocol string, n int, t *table) error {
	var m latencyMeter
	w, err := watch(ctx, b.address, protocol, apisixPrefix, n, m.received)
	if err != nil {
		return err
	}
	defer w.close()

	const perSecond = 20
	changes := int(o.per.Seconds() * perSecond)
	before, err := b.cpu()
	if err != nil {
		return err
	}
	for i := range changes {
		m.send()
		s.Set(next.next(manyServices))
		// One after the other, so that the n-th event belongs to the n-th change.
		if err := w.waitFor(ctx, i+1); err != nil {
			return err
		}
		if err := sleep(ctx, time.Second/perSecond); err != nil {
			return err
		}
	}
	m.closed.Store(true)
	steady, err := b.cpu()
	if err != nil {
		return err
	}
	events := float64(w.received.Load()) / float64(n*changes)

	more := 2000 / (1 + n/100)
	start := time.Now()
	for range more {
		s.Set(next.next(manyServices))
	}
	if err := w.waitFor(ctx, changes+more); err != nil {
		return err
	}
	wall := time.Since(start)
	after, err := b.cpu()
	if err != nil {
		return err
	}
	t.add(protocol, strconv.Itoa(n), p50p99(m.latencies), fmt.Sprintf("%.2f", events), micros(steady-before, changes),
		rate(more, wall), micros(after-steady, more))
	return nil
}

// endpointChanges counts over the whole run, so that no change is without effect.
type endpointChanges struct{ n int }

// next gives one service, another each time, an endpoint that it never had.
func (e *endpointChanges) next(services int) *endpointpb.ClusterLoadAssignment {
	e.n++
	a := xdstest.Endpoints(e.n%services, endpointsPerService)
	address := a.GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress()
	address.Address = fmt.Sprintf("10.200.%d.%d", e.n>>8&0xff, e.n&0xff)
	return a
}
