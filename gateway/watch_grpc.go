package gateway

import (
	"context"
	"errors"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"meshbridge/store"
)

// batchBytes bounds the revisions that are sent to a lagging watch in one response. Clients other than
// etcd's own often limit messages to 4 MiB.
const batchBytes = 512 << 10

// watchService implements etcdserverpb.Watch.
type watchService struct {
	pb.UnimplementedWatchServer
	*endpoint
}

// Watch implements etcdserverpb.Watch.
func (s *watchService) Watch(stream grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]) error {
	requests, ended := make(chan *pb.WatchRequest), make(chan error, 1)
	// It ends with the stream, which is after the return of this method.
	s.streams.Go(func() { ended <- s.receiveWatch(stream.Context(), stream.Recv, requests) })
	ws := s.newWatchStream(stream.Context(), &grpcSink{Server: s.Server, stream: stream}, formProto, &s.metrics.grpc)
	return ws.run(nil, requests, ended)
}

// receiveWatch passes on the requests of a stream until that ends, which is when ctx does.
func (e *endpoint) receiveWatch(
	ctx context.Context, receive func() (*pb.WatchRequest, error), requests chan<- *pb.WatchRequest,
) error {
	for {
		request, err := receive()
		switch {
		case errors.Is(err, io.EOF):
			// The client has no more requests, and still wants events.
			<-ctx.Done()
			return wireError(ctx.Err())
		case err != nil:
			return err
		}
		// Holding here and not in the stream's own goroutine lets its other watches go on.
		if create := request.GetCreateRequest(); create != nil {
			if err := e.hold(ctx, create.GetKey(), create.GetRangeEnd()); err != nil {
				return err
			}
		}
		select {
		case requests <- request:
		case <-ctx.Done():
			return wireError(ctx.Err())
		}
	}
}

// grpcSink sends watch responses over gRPC, which buffers and flushes by itself.
type grpcSink struct {
	*Server
	stream grpc.ServerStream
}

func (g *grpcSink) control(r *pb.WatchResponse) error { return g.stream.SendMsg(r) }

func (g *grpcSink) flush() error { return nil }

// events joins revisions up to batchBytes: one response per revision is the rule only while the
// watch keeps up.
func (g *grpcSink) events(w *watcher, blocks []*store.Block) (total int, err error) {
	var parts [][]byte
	size := 0
	var last int64
	for _, b := range blocks {
		encoded := g.encodeBlock(w.class, b)
		if encoded.events() == 0 {
			continue
		}
		body := encoded.body()
		if size > 0 && size+len(body) > batchBytes {
			if err := g.send(w, last, parts); err != nil {
				return total, err
			}
			parts, size = nil, 0
		}
		parts, size, last = append(parts, body), size+len(body), b.Revision
		total += encoded.events()
	}
	if size == 0 {
		return total, nil
	}
	return total, g.send(w, last, parts)
}

// send sends events in one response, or, to a watch that allows it, in fragments no larger than a request
// may be, which is what etcd does.
func (g *grpcSink) send(w *watcher, revision int64, parts [][]byte) error {
	if w.fragment && len(parts) == 1 {
		head := g.frameHead(w.id, revision, true)
		fragments := splitEvents(parts[0], g.cfg.Limits.messageBytes()-len(head))
		for _, fragment := range fragments[:len(fragments)-1] {
			if err := g.stream.SendMsg(&watchFrame{head: head, events: [][]byte{fragment}}); err != nil {
				return err
			}
		}
		parts = fragments[len(fragments)-1:]
	}
	return g.stream.SendMsg(&watchFrame{head: g.frameHead(w.id, revision, false), events: parts})
}

// frameHead encodes everything of a WatchResponse but the events.
func (g *grpcSink) frameHead(id, revision int64, fragment bool) []byte {
	head := g.appendProtoHeader(make([]byte, 0, 64), revision)
	head = appendProtoInt(head, fieldResponseWatchID, id)
	if fragment {
		head = appendProtoInt(head, fieldResponseFragment, 1)
	}
	return head
}

// splitEvents splits encoded events into parts smaller than limit, each of one event at least.
func splitEvents(events []byte, limit int) [][]byte {
	if len(events) < limit {
		return [][]byte{events}
	}
	var parts [][]byte
	for len(events) > 0 {
		size := 0
		for size < len(events) {
			_, _, n := protowire.ConsumeField(events[size:])
			if n < 0 || size > 0 && size+n >= limit {
				break
			}
			size += n
		}
		parts, events = append(parts, events[:size:size]), events[size:]
	}
	return parts
}
