package gateway_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"meshbridge/gateway"
)

func TestWatchersTellWhoHasBeenSentWhat(t *testing.T) {
	s := start(t, gateway.Config{})
	if all := s.Watchers(); len(all) != 0 {
		t.Fatalf("before there are any: %+v", all)
	}
	before := time.Now()
	w := watchRaw(t, s, `{"create_request":{"key":"L2E=","range_end":"L2I="}}`)
	w.created()
	stream := openWatch(t, s, create(&pb.WatchCreateRequest{Key: []byte("/a")}), create(&pb.WatchCreateRequest{Key: []byte("/c")}))
	receive(t, stream)
	receive(t, stream)
	revision := put(t, s.store, "/a", "1")
	if err := s.WaitDelivered(within(t), revision); err != nil {
		t.Fatal(err)
	}
	all := s.Watchers()
	if len(all) != 2 {
		t.Fatalf("%d watchers, want 2: %+v", len(all), all)
	}
	for i, want := range []struct {
		protocol string
		keys     []string
	}{{"http", []string{"[/a, /b)"}}, {"grpc", []string{"/a", "/c"}}} {
		got := all[i]
		if got.Protocol != want.protocol || !slices.Equal(got.Keys, want.keys) || got.Revision < revision ||
			!strings.HasPrefix(got.Peer, "127.0.0.1:") || got.Since.Before(before) {
			t.Errorf("watcher %d: %+v, want %+v at revision %d", i, got, want, revision)
		}
	}
	receive(t, stream) // the event
	// A watch that is cancelled is no longer named, and a stream without any is none.
	if err := stream.Send(cancelWatch(0)); err != nil {
		t.Fatal(err)
	}
	receive(t, stream)
	if got := s.Watchers(); len(got) != 2 || !slices.Equal(got[1].Keys, []string{"/c"}) {
		t.Errorf("after a cancellation: %+v", got)
	}
	if err := stream.Send(cancelWatch(1)); err != nil {
		t.Fatal(err)
	}
	receive(t, stream)
	if got := s.Watchers(); len(got) != 1 || got[0].Protocol != "http" {
		t.Errorf("without watches: %+v", got)
	}
}
