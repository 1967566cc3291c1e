package etcd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
)

// watchLog is everything that one watch stream received, in order.
type watchLog struct {
	name string // for failures
	stop context.CancelFunc

	mu      sync.Mutex
	frames  []*pb.WatchResponse
	texts   []string      // of the frames, over HTTP
	ended   error         // why there will be no more; nil while there may
	changed chan struct{} // closed when any of the above changes
}

func newWatchLog(name string, stop context.CancelFunc) *watchLog {
	return &watchLog{name: name, stop: stop, changed: make(chan struct{})}
}

func (l *watchLog) add(frame *pb.WatchResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frames = append(l.frames, frame)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *watchLog) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = err
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *watchLog) all() []*pb.WatchResponse {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.frames
}

// at waits for frame i until giveUp is closed. It reports false if there is
// none.
func (l *watchLog) at(i int, giveUp <-chan struct{}) (*pb.WatchResponse, bool) {
	for {
		l.mu.Lock()
		frames, ended, changed := l.frames, l.ended, l.changed
		l.mu.Unlock()
		if i < len(frames) {
			return frames[i], true
		}
		if ended != nil {
			return nil, false
		}
		select {
		case <-changed:
		case <-giveUp:
			return nil, false
		}
	}
}

// await waits until the frames from the given one on have one that is wanted,
// and returns it.
func (l *watchLog) await(t *testing.T, from int, wanted func(*pb.WatchResponse) bool) *pb.WatchResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := from; ; i++ {
		frame, ok := l.at(i, ctx.Done())
		if !ok {
			t.Fatalf("%s: no such response; the last are %.3000s", l.name, fmt.Sprint(tail(l.all(), 5)))
		}
		if wanted(frame) {
			return frame
		}
	}
}

func tail[E any](s []E, n int) []E { return s[max(0, len(s)-n):] }

// gate is asked before a stream reads a response; it makes slow readers. A nil
// gate is open.
type gate func(ctx context.Context)

func (g gate) pass(ctx context.Context) {
	if g != nil {
		g(ctx)
	}
}

// grpcWatch is a watch stream over gRPC.
type grpcWatch struct {
	*watchLog
	stream pb.Watch_WatchClient
}

// watchGRPC opens a stream until the test ends.
func watchGRPC(t *testing.T, name string, client *clientv3.Client, gate gate) *grpcWatch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := pb.NewWatchClient(client.ActiveConnection()).Watch(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	w := &grpcWatch{watchLog: newWatchLog(name, cancel), stream: stream}
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			gate.pass(ctx)
			frame, err := stream.Recv()
			if err != nil {
				w.end(err)
				return
			}
			w.add(frame)
		}
	})
	t.Cleanup(func() {
		cancel()
		reader.Wait()
	})
	return w
}

func (w *grpcWatch) create(t *testing.T, r *pb.WatchCreateRequest) {
	t.Helper()
	w.send(t, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

func (w *grpcWatch) cancel(t *testing.T, id int64) {
	t.Helper()
	w.send(t, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (w *grpcWatch) askProgress(t *testing.T) {
	t.Helper()
	w.send(t, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (w *grpcWatch) send(t *testing.T, r *pb.WatchRequest) {
	t.Helper()
	if err := w.stream.Send(r); err != nil {
		t.Errorf("%s: %v", w.name, err)
	}
}

// watchHTTP opens a stream with one create request after the other in its body.
func watchHTTP(t *testing.T, name string, s server, gate gate, creates ...*pb.WatchCreateRequest) *watchLog {
	t.Helper()
	var body bytes.Buffer
	for _, create := range creates {
		text, err := protojson.Marshal(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
		if err != nil {
			t.Fatal(err)
		}
		body.Write(text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+"/v3/watch", &body)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	transport := &http.Transport{}
	w := newWatchLog(name, cancel)
	var reader sync.WaitGroup
	reader.Go(func() { w.end(w.readHTTP(ctx, transport, request, gate)) })
	t.Cleanup(func() {
		cancel()
		reader.Wait()
		transport.CloseIdleConnections()
	})
	return w
}

// watchClient opens one watch with etcd's own client, which follows it over
// streams of its own making and numbers it itself.
func watchClient(t *testing.T, name string, client *clientv3.Client, gate gate, create *pb.WatchCreateRequest) *watchLog {
	t.Helper()
	options := []clientv3.OpOption{
		clientv3.WithRange(string(create.GetRangeEnd())), clientv3.WithRev(create.GetStartRevision()), clientv3.WithCreatedNotify(),
		clientv3.WithProgressNotify(),
	}
	if create.GetPrevKv() {
		options = append(options, clientv3.WithPrevKV())
	}
	ctx, cancel := context.WithCancel(t.Context())
	responses := client.Watch(ctx, string(create.GetKey()), options...)
	w := newWatchLog(name, cancel)
	var reader sync.WaitGroup
	reader.Go(func() {
		for r := range responses {
			gate.pass(ctx)
			if ctx.Err() != nil {
				break // what follows is the client's
			}
			w.add(&pb.WatchResponse{
				Header: r.Header, Created: r.Created, Canceled: r.Canceled, CompactRevision: r.CompactRevision, Events: r.Events,
			})
		}
		w.end(errors.New("the watch has ended"))
	})
	t.Cleanup(func() {
		cancel()
		reader.Wait()
	})
	return w
}

func (l *watchLog) readHTTP(ctx context.Context, transport *http.Transport, request *http.Request, gate gate) error {
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", response.Status)
	}
	lines := bufio.NewReaderSize(response.Body, 1<<20)
	for {
		gate.pass(ctx)
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		var message struct{ Result, Error json.RawMessage }
		if err := json.Unmarshal(line, &message); err != nil {
			return fmt.Errorf("%w in %q", err, line)
		}
		if message.Error != nil {
			return fmt.Errorf("error %s", message.Error)
		}
		frame := new(pb.WatchResponse)
		if err := protojson.Unmarshal(message.Result, frame); err != nil {
			return fmt.Errorf("%w in %q", err, line)
		}
		l.mu.Lock()
		l.texts = append(l.texts, string(line))
		l.mu.Unlock()
		l.add(frame)
	}
}
