package etcd

import (
	"bytes"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// A revision of several megabytes comes whole, or in the fragments of etcd to
// a watch that allows them; so does the history of several such.
func TestLargeRevisionsComeAsFromEtcd(t *testing.T) {
	onBoth(t, func(t *testing.T, s server) string {
		client := s.client(t)
		c := newGRPCCaller(client)
		live := watchGRPC(t, s.name+", live", client, nil)
		everything := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}
		fragments := proto.Clone(everything).(*pb.WatchCreateRequest)
		fragments.Fragment = true
		for i, create := range []*pb.WatchCreateRequest{everything, fragments} {
			live.create(t, create)
			live.await(t, i, (*pb.WatchResponse).GetCreated)
		}
		const keys = 12
		for i := range keys {
			c.call(t, &pb.PutRequest{Key: fmt.Append(nil, "key ", i), Value: bytes.Repeat([]byte{byte(i)}, 400<<10)})
		}
		gone := c.call(t, &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}).response.(*pb.DeleteRangeResponse)
		last := gone.GetHeader().GetRevision()
		past := watchGRPC(t, s.name+", past", client, nil)
		fragments.StartRevision = 2
		past.create(t, fragments)
		var story string
		for _, w := range []struct {
			log *grpcWatch
			id  int64
		}{{live, 0}, {live, 1}, {past, 0}} {
			w.log.await(t, 0, func(f *pb.WatchResponse) bool {
				return f.GetWatchId() == w.id && !f.GetFragment() && len(f.GetEvents()) > 0 && f.GetHeader().GetRevision() == last &&
					revisionOf(f.GetEvents()[len(f.GetEvents())-1]) == last
			})
			events := 0
			for _, f := range w.log.all() {
				if f.GetWatchId() != w.id || len(f.GetEvents()) == 0 {
					continue
				}
				events += len(f.GetEvents())
				if size := proto.Size(f); w.id == 1 && size > 2<<20 {
					t.Errorf("%s: a fragment of %d bytes", s.name, size)
				}
				if w.log == live && revisionOf(f.GetEvents()[0]) == last {
					story += fmt.Sprintf("watch %d: %d events, fragment %t\n", w.id, len(f.GetEvents()), f.GetFragment())
				}
			}
			story += fmt.Sprintf("%d events\n", events)
		}
		return story
	})
}
