package xds_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// patience is how long tests wait for what should take milliseconds.
const patience = 20 * time.Second

// observer runs a Source and checks of every Update what holds for all of them.
type observer struct {
	t      testing.TB
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	changed *sync.Cond
	last    xds.Update
	history []xds.Update
}

func observe(tb testing.TB, source xds.Source) *observer {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{t: tb, cancel: cancel, ended: make(chan struct{})}
	o.changed = sync.NewCond(&o.mu)
	go func() {
		defer close(o.ended)
		if err := source.Run(ctx, o.deliver); err != nil {
			tb.Errorf("Run: %v", err)
		}
	}()
	tb.Cleanup(o.stop)
	return o
}

func (o *observer) stop() {
	o.cancel()
	<-o.ended
}

func (o *observer) deliver(u xds.Update) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if diff := cmp.Diff(difference(o.last.Snapshot, u.Snapshot), u.Changed, cmpopts.EquateEmpty()); diff != "" {
		o.t.Errorf("Changed is not what changed (-difference +Changed):\n%s", diff)
	}
	if u.Received.IsZero() {
		o.t.Error("an Update does not say when it was received")
	}
	o.last = u
	o.history = append(o.history, u)
	o.changed.Broadcast()
}

// difference lists what differs between two Snapshots, the slow way.
func difference(a, b *xds.Snapshot) []xds.Key {
	var keys []xds.Key
	for _, typeURL := range append(a.Types(), b.Types()...) {
		for r := range a.All(typeURL) {
			if now := b.Get(r.Key); now == nil || !bytes.Equal(now.Body.GetValue(), r.Body.GetValue()) {
				keys = append(keys, r.Key)
			}
		}
		for r := range b.All(typeURL) {
			if a.Get(r.Key) == nil {
				keys = append(keys, r.Key)
			}
		}
	}
	slices.SortFunc(keys, func(a, b xds.Key) int { return bytes.Compare([]byte(a.Type+a.Name), []byte(b.Type+b.Name)) })
	return slices.Compact(keys)
}

// wait returns the newest Update once it satisfies the condition.
func (o *observer) wait(what string, condition func(xds.Update) bool) xds.Update {
	o.t.Helper()
	timeout := time.AfterFunc(patience, o.changed.Broadcast)
	defer timeout.Stop()
	deadline := time.Now().Add(patience)
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.history) == 0 || !condition(o.last) {
		if time.Now().After(deadline) {
			o.t.Fatalf("%s: not within %s; last update: %s", what, patience, describe(o.last))
		}
		o.changed.Wait()
	}
	return o.last
}

// updates returns how many Updates there have been, and the newest.
func (o *observer) updates() (int, xds.Update) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.history), o.last
}

// since returns the Updates after the first n.
func (o *observer) since(n int) []xds.Update {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.history[n:])
}

func describe(u xds.Update) string {
	var s strings.Builder
	fmt.Fprintf(&s, "pending %v rejected %v;", u.Pending, u.Rejected)
	for _, typeURL := range u.Snapshot.Types() {
		fmt.Fprintf(&s, " %s %v", xds.ShortType(typeURL), names(u.Snapshot, typeURL))
	}
	return s.String()
}

func names(s *xds.Snapshot, typeURL string) []string {
	var names []string
	for r := range s.All(typeURL) {
		names = append(names, r.Name)
	}
	return names
}

// everything is the condition that nothing is outstanding.
func everything(u xds.Update) bool { return len(u.Pending) == 0 }

// connect runs a client of the server.
func connect(tb testing.TB, srv *xdstest.Server, world bool) (*xds.Client, *observer) {
	tb.Helper()
	return connectWith(tb, xds.Config{Address: srv.Addr(), StateOfTheWorld: world})
}

// connectWith adds to the Config what tests need: a node, and little patience between attempts.
func connectWith(tb testing.TB, config xds.Config) (*xds.Client, *observer) {
	tb.Helper()
	config.Node = xdstest.Node()
	if config.Backoff == (xds.Backoff{}) {
		config.Backoff = xds.Backoff{Base: 5 * time.Millisecond, Max: 40 * time.Millisecond}
	}
	client, err := xds.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return client, observe(tb, client)
}

// variants are the protocol variants to test, by name: whether it is the state of the world.
func variants() map[string]bool {
	return map[string]bool{"delta": false, "state of the world": true}
}

// message decodes a resource of the update.
func message[T proto.Message](tb testing.TB, u xds.Update, typeURL, name string) T {
	tb.Helper()
	r := u.Snapshot.Get(xds.Key{Type: typeURL, Name: name})
	if r == nil {
		tb.Fatalf("no %s %q in: %s", xds.ShortType(typeURL), name, describe(u))
	}
	m, err := xds.Decode[T](r)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func endpointCount(tb testing.TB, u xds.Update, i int) int {
	tb.Helper()
	cla := message[*endpointpb.ClusterLoadAssignment](tb, u, xds.EndpointType, xdstest.ClusterName(i))
	n := 0
	for _, locality := range cla.GetEndpoints() {
		n += len(locality.GetLbEndpoints())
	}
	return n
}

func staticCluster(name string) *clusterpb.Cluster {
	return &clusterpb.Cluster{Name: name, ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STATIC}}
}

// records is a slog.Handler that keeps what is logged.
type records struct {
	mu    sync.Mutex
	lines []string
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *records) WithGroup(string) slog.Handler            { return r }

func (r *records) Handle(_ context.Context, record slog.Record) error {
	line := record.Level.String() + " " + record.Message
	record.Attrs(func(a slog.Attr) bool {
		line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	return nil
}

func (r *records) containing(text string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []string
	for _, line := range r.lines {
		if bytes.Contains([]byte(line), []byte(text)) {
			found = append(found, line)
		}
	}
	return found
}

// awaitLog waits until so many lines contain the text.
func awaitLog(tb testing.TB, r *records, text string, n int) {
	tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(r.containing(text)) < n {
		select {
		case <-deadline.C:
			tb.Fatalf("no %d log lines with %q in %q", n, text, r.containing(""))
		case <-tick.C:
		}
	}
}
