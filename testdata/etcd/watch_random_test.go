package etcd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// Random watches on a few streams, created and canceled between random writes
// and compactions, tell the same story on both servers: the same answers to
// creations and cancellations, and for each watch the same events.
func TestRandomWatchesTellTheStoryOfEtcd(t *testing.T) {
	t.Parallel()
	r := &watchComparison{requestMaker: newRequestMaker(randomness(t), false), oldest: 1, streams: make([]comparedStream, 4)}
	etcd, meshbridge := startBoth(t)
	for i, s := range []server{etcd, meshbridge} {
		client := s.client(t)
		r.callers[i] = newGRPCCaller(client)
		for n := range r.streams {
			r.streams[n].logs[i] = watchGRPC(t, fmt.Sprintf("%s, stream %d", s.name, n), client, nil)
		}
	}
	for range *opsFlag / 2 {
		stream := &r.streams[r.IntN(len(r.streams))]
		switch r.IntN(20) {
		case 0, 1:
			r.create(t, stream)
		case 2:
			r.cancel(t, stream)
		case 3:
			if r.chance(30) {
				r.compact(t)
			}
		case 4, 5, 6:
			r.call(t, r.txn())
		case 7, 8, 9:
			r.call(t, r.deleteRange())
		default:
			r.call(t, r.put())
		}
	}
	r.settle(t)
	watches := 0
	for n, s := range r.streams {
		want, got := s.logs[0].stories(t), s.logs[1].stories(t)
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("events of the watches of stream %d (-etcd +meshbridge):\n%s", n, diff)
		}
		watches += len(want)
	}
	t.Logf("%d watches, %d revisions", watches, r.revision)
}

// watchComparison makes the same requests to etcd, which is the first of each
// pair, and to meshbridge.
type watchComparison struct {
	*requestMaker

	callers [2]*grpcCaller
	streams []comparedStream
	oldest  int64 // revision that can be read
	latest  int64 // revision from which a watch starts
}

// comparedStream is the same stream on both servers.
type comparedStream struct {
	logs [2]*grpcWatch
	live []int64 // ids of watches
}

func (r *watchComparison) call(t *testing.T, request proto.Message) (ok bool) {
	t.Helper()
	want, got := r.callers[0].call(t, request), r.callers[1].call(t, request)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{}), protocmp.Transform()); diff != "" {
		t.Fatalf("%v (-etcd +meshbridge):\n%s", request, diff)
	}
	if want.response != nil {
		r.saw(request, want.response)
	}
	return want.response != nil
}

// compact compacts when all watches have caught up, because which of those that
// lag are canceled is up to chance.
func (r *watchComparison) compact(t *testing.T) {
	t.Helper()
	r.settle(t)
	revision := max(1, r.revision-r.Int64N(20))
	if !r.fragile[revision] && r.call(t, &pb.CompactionRequest{Revision: revision, Physical: true}) {
		r.oldest = revision
	}
}

// create asks both servers for the same watch and compares what becomes of it.
func (r *watchComparison) create(t *testing.T, s *comparedStream) {
	t.Helper()
	request := &pb.WatchCreateRequest{PrevKv: r.chance(50), Fragment: r.chance(20), ProgressNotify: r.chance(20)}
	request.Key, request.RangeEnd = r.span()
	request.WatchId = []int64{0, 0, 0, 7, 8, -3}[r.IntN(6)]
	switch n := r.IntN(10); {
	case n < 6:
		request.StartRevision = r.someRevision()
	case n < 7:
		request.StartRevision = r.revision + r.Int64N(15)
	}
	for _, filter := range []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE, pb.WatchCreateRequest_NOPUT} {
		if r.chance(10) {
			request.Filters = append(request.Filters, filter)
		}
	}
	before := s.received()
	for _, w := range s.logs {
		w.create(t, request)
	}
	created := s.await(t, request, before, (*pb.WatchResponse).GetCreated)
	id := created.GetWatchId()
	switch start := request.GetStartRevision(); {
	case created.GetCanceled():
	case start == 0 || start >= r.oldest:
		s.live = append(s.live, id)
		r.latest = max(r.latest, start)
	default:
		s.await(t, request, before, func(f *pb.WatchResponse) bool { return f.GetCompactRevision() != 0 && f.GetWatchId() == id })
		// See compactedWatch.
		from := len(s.logs[0].all())
		s.logs[0].cancel(t, id)
		s.logs[0].await(t, from, canceledBy(id))
	}
}

// cancel ends a watch that has caught up, or one that does not exist.
func (r *watchComparison) cancel(t *testing.T, s *comparedStream) {
	t.Helper()
	r.settle(t)
	if len(s.live) == 0 || r.chance(10) {
		for _, w := range s.logs {
			w.cancel(t, 4242)
		}
		return
	}
	i := r.IntN(len(s.live))
	id := s.live[i]
	s.live = slices.Delete(s.live, i, i+1)
	before := s.received()
	for _, w := range s.logs {
		w.cancel(t, id)
	}
	s.await(t, id, before, canceledBy(id))
}

func canceledBy(id int64) func(*pb.WatchResponse) bool {
	return func(f *pb.WatchResponse) bool {
		return f.GetCanceled() && f.GetWatchId() == id && f.GetCompactRevision() == 0
	}
}

// settle waits until all watches have caught up, which they say when they are
// asked for progress. etcd is asked again and again, as by its clients: it says
// nothing while a watch lags.
func (r *watchComparison) settle(t *testing.T) {
	t.Helper()
	for r.revision < r.latest {
		r.call(t, &pb.PutRequest{Key: []byte("a")})
	}
	for _, s := range r.streams {
		if len(s.live) == 0 {
			continue
		}
		for _, w := range s.logs {
			w.settle(t, r.revision)
		}
	}
}

func (w *grpcWatch) settle(t *testing.T, revision int64) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for i := len(w.all()); ; {
		w.askProgress(t)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		f, ok := w.at(i, ctx.Done())
		for ; ok; f, ok = w.at(i, ctx.Done()) {
			i++
			if f.GetWatchId() == -1 && !f.GetCreated() && f.GetHeader().GetRevision() >= revision {
				cancel()
				return
			}
		}
		cancel()
		if time.Now().After(deadline) {
			t.Fatalf("%s: no progress to %d; the last responses are %v", w.name, revision, tail(w.all(), 5))
		}
	}
}

// received is how many responses each server has sent.
func (s *comparedStream) received() (n [2]int) {
	for i, w := range s.logs {
		n[i] = len(w.all())
	}
	return n
}

// await waits for the same response from both servers, after those received
// before, and compares them.
func (s *comparedStream) await(t *testing.T, request any, before [2]int, wanted func(*pb.WatchResponse) bool) *pb.WatchResponse {
	t.Helper()
	var responses [2]*pb.WatchResponse
	for i, w := range s.logs {
		responses[i] = proto.Clone(w.await(t, before[i], wanted)).(*pb.WatchResponse)
		withoutChoices(responses[i])
	}
	if diff := cmp.Diff(responses[0], responses[1], protocmp.Transform()); diff != "" {
		t.Fatalf("%v (-etcd +meshbridge):\n%s", request, diff)
	}
	return responses[0]
}

// watchStory is what one watch of a stream told.
type watchStory struct {
	ID     int64
	Events []*mvccpb.Event
}

// stories are those of all watches of the stream, in the order in which they
// were created. How events are batched is up to the server, but those of one
// revision stay together.
func (l *watchLog) stories(t *testing.T) []*watchStory {
	t.Helper()
	var all []*watchStory
	current := map[int64]*watchStory{}
	for _, f := range l.all() {
		id := f.GetWatchId()
		if f.GetCreated() && !f.GetCanceled() {
			current[id] = &watchStory{ID: id}
			all = append(all, current[id])
		}
		if len(f.GetEvents()) == 0 {
			continue
		}
		s := current[id]
		if len(s.Events) > 0 && revisionOf(s.Events[len(s.Events)-1]) >= revisionOf(f.GetEvents()[0]) {
			t.Errorf("%s: watch %d is told of revision %d again", l.name, id, revisionOf(f.GetEvents()[0]))
		}
		s.Events = append(s.Events, f.GetEvents()...)
		if f.GetFragment() {
			t.Errorf("%s: watch %d is sent fragments of little", l.name, id)
		}
	}
	return all
}

func revisionOf(e *mvccpb.Event) int64 { return e.GetKv().GetModRevision() }

// A watch over HTTP is sent the same lines by both servers, also where it is
// refused and where it is compacted.
func TestWatchOverHTTPIsSentTheLinesOfEtcd(t *testing.T) {
	t.Parallel()
	r := newRequestMaker(randomness(t), false)
	etcd, meshbridge := startBoth(t)
	a, b := newGRPCCaller(etcd.client(t)), newGRPCCaller(meshbridge.client(t))
	compareCalls(t, r, 100, a, b)
	compaction := &pb.CompactionRequest{Revision: r.revision}
	for r.fragile[r.revision] || a.call(t, compaction).response == nil || b.call(t, compaction).response == nil {
		compareCalls(t, r, 1, a, b)
		compaction.Revision = r.revision
	}
	r.compacted[r.revision] = true
	everything := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}
	for name, creates := range map[string][]*pb.WatchCreateRequest{
		"live":      {{Key: []byte("b"), RangeEnd: []byte("a")}, {Key: []byte("a"), StartRevision: -5}, everything},
		"another":   {{Key: everything.Key, RangeEnd: everything.RangeEnd, WatchId: 12}, {Key: []byte("zz"), WatchId: 12}},
		"compacted": {{Key: []byte("a"), StartRevision: 1, WatchId: 3}},
		"empty key": {{}},
	} {
		logs := [2]*watchLog{
			watchHTTP(t, "etcd", etcd, nil, creates...), watchHTTP(t, "meshbridge", meshbridge, nil, creates...),
		}
		read := 0
		next := func() {
			t.Helper()
			var texts [2]string
			for i, l := range logs {
				l.await(t, read, func(*pb.WatchResponse) bool { return true })
				texts[i] = l.text(t, read)
			}
			texts[1] = watchIDAtTheEnd.asEtcd(texts[1])
			if diff := cmp.Diff(texts[0], texts[1]); diff != "" {
				t.Errorf("%s, line %d (-etcd +meshbridge):\n%s", name, read, diff)
			}
			read++
		}
		for range creates {
			next()
		}
		switch name {
		case "compacted":
			next()
		case "live", "another":
			for range 200 {
				before := r.revision
				compareCalls(t, r, 1, a, b)
				if r.revision > before {
					next()
				}
			}
		}
	}
}

// text is one line that a stream over HTTP received, without the identities of
// cluster and member and without the spaces that etcd adds at random.
func (l *watchLog) text(t *testing.T, i int) string {
	t.Helper()
	l.mu.Lock()
	line := l.texts[i]
	l.mu.Unlock()
	var text bytes.Buffer
	if err := json.Compact(&text, []byte(line)); err != nil {
		t.Fatal(err)
	}
	return chosen.ReplaceAllString(text.String(), `"$1":"0"`)
}
