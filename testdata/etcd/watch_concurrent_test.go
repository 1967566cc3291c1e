package etcd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
)

const (
	concurrentWriters  = 4
	writesOfEach       = 400
	watchSessions      = 6 // of each watching worker
	compactionsEvery   = 200
	progressInterval   = "100ms"
	progressNotifyFlag = "--watch-progress-notify-interval"
)

// Whatever writers, compactions and other watchers do at the same time, each
// watch stream keeps its promises. A real etcd passes too, which shows that the
// checker is right.
func TestWatchStreamsKeepTheirPromises(t *testing.T) {
	t.Parallel()
	t.Run("meshbridge", func(t *testing.T) {
		t.Parallel()
		checkWatches(t, startMeshbridge(t, progressNotifyFlag, progressInterval), true)
	})
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		checkWatches(t, startEtcd(t, progressNotifyFlag, progressInterval), false)
	})
}

// watchSession is one stream and what was asked of it.
type watchSession struct {
	log     *watchLog
	creates []*pb.WatchCreateRequest
	cancels map[int64]bool
}

// watchRun is a store under load.
type watchRun struct {
	server server
	better bool
	client *clientv3.Client

	revision atomic.Int64  // the last that a writer knows of
	done     chan struct{} // closed when the writers are

	mu       sync.Mutex
	writes   []write
	sessions []*watchSession // that their clients have left
}

func checkWatches(t *testing.T, s server, better bool) {
	t.Helper()
	run := &watchRun{server: s, better: better, client: s.client(t), done: make(chan struct{})}
	random := randomness(t)
	var writers, watchers sync.WaitGroup
	for i := range concurrentWriters {
		random := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		writers.Go(func() { run.write(t, i, random) })
	}
	// The last session of each watcher is still open.
	open := make([]*watchSession, 10)
	for i := range open {
		random := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		watchers.Go(func() { open[i] = run.watch(t, i, random) })
	}
	writers.Wait()
	close(run.done)
	watchers.Wait()
	if t.Failed() {
		return
	}
	truth, err := replay(run.writes)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, session := range run.sessions {
		c := newWatchChecker(truth, session.creates, session.cancels, better)
		if err := checkFrames(c, session.log.all()); err != nil {
			t.Errorf("%s: %v", session.log.name, err)
		}
		checked += len(session.log.all())
	}
	for _, session := range open {
		checked += checkToTheEnd(t, newWatchChecker(truth, session.creates, session.cancels, better), session)
	}
	t.Logf("%d revisions, %d streams, %d responses", truth.last(), len(run.sessions)+len(open), checked)
}

// checkToTheEnd checks a session that is open until it has sent everything, and
// returns the number of its responses.
func checkToTheEnd(t *testing.T, c *watchChecker, session *watchSession) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	checked := 0
	for checked < len(session.log.all()) || c.missing() > 0 {
		f, ok := session.log.at(checked, ctx.Done())
		if !ok {
			t.Errorf("%s: the stream ended or stalled with %d events or creations missing", session.log.name, c.missing())
			return checked
		}
		if err := c.frame(f); err != nil {
			t.Errorf("%s: response %d: %v", session.log.name, checked, err)
			return checked
		}
		checked++
	}
	return checked
}

// write is one writer. Every second one uses HTTP.
func (run *watchRun) write(t *testing.T, i int, random *rand.Rand) {
	grpc, http := newGRPCCaller(run.client), newHTTPCaller(t, run.server, random)
	call := func(request proto.Message) proto.Message {
		if i%2 == 0 {
			response, err := grpc.send(t.Context(), request)
			if err != nil {
				t.Errorf("%v: %v", request, err)
				return nil
			}
			return response
		}
		answer := http.call(t, request)
		if answer.response == nil {
			t.Errorf("%v: %s", request, answer.failure)
		}
		return answer.response
	}
	lease := int64(i + 1)
	call(&pb.LeaseGrantRequest{ID: lease, TTL: leaseStep})
	for n := range writesOfEach {
		var request proto.Message
		switch k := random.IntN(20); {
		case k < 10:
			request = &pb.PutRequest{Key: someKey(random), Value: fmt.Append(nil, i, " ", n)}
		case k < 12:
			request = &pb.PutRequest{Key: someKey(random), Value: fmt.Append(nil, i, " ", n), Lease: lease}
		case k < 14:
			key := someKey(random)
			request = &pb.DeleteRangeRequest{Key: key, RangeEnd: []byte{key[0], key[1] + byte(random.IntN(3))}}
		case k < 19 || n%20 != 0:
			request = someTxn(random, fmt.Append(nil, i, " ", n))
		default:
			request = &pb.LeaseRevokeRequest{ID: lease}
		}
		response := call(request)
		if response == nil {
			return
		}
		w := write{request, response}
		if _, ok := request.(*pb.LeaseRevokeRequest); ok {
			call(&pb.LeaseGrantRequest{ID: lease, TTL: leaseStep})
		}
		run.mu.Lock()
		run.writes = append(run.writes, w)
		run.mu.Unlock()
		run.revision.Store(max(run.revision.Load(), w.revision()))
		if i == 0 && n%(compactionsEvery/concurrentWriters) == 1 {
			compaction := &pb.CompactionRequest{Revision: max(1, w.revision()-random.Int64N(compactionsEvery))}
			if response, err := grpc.send(t.Context(), compaction); err == nil { // or it was compacted before
				run.mu.Lock()
				run.writes = append(run.writes, write{compaction, response})
				run.mu.Unlock()
			}
		}
	}
}

// someKey is one of thirty, in three prefixes.
func someKey(random *rand.Rand) []byte {
	return []byte{byte('a' + random.IntN(3)), byte('0' + random.IntN(10))}
}

// someTxn puts and deletes different keys.
func someTxn(random *rand.Rand, value []byte) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for i, digit := range random.Perm(10)[:1+random.IntN(5)] {
		key := []byte{byte('a' + random.IntN(3)), byte('0' + digit)}
		op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}
		if i > 0 && random.IntN(4) == 0 {
			op = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
		}
		t.Success = append(t.Success, op)
	}
	return t
}

// watch is one watcher: it opens streams one after the other, and leaves the
// last one open. Some use HTTP, some etcd's client, and every fourth reads slowly.
func (run *watchRun) watch(t *testing.T, i int, random *rand.Rand) *watchSession {
	for n := range watchSessions {
		last := n == watchSessions-1
		session := &watchSession{cancels: map[int64]bool{}}
		for range 1 + random.IntN(4) {
			session.creates = append(session.creates, run.someCreate(random))
		}
		if random.IntN(3) == 0 { // the same id again
			session.creates[0].WatchId = 77
			session.creates = append(session.creates, proto.Clone(session.creates[0]).(*pb.WatchCreateRequest))
			session.creates[0].StartRevision, session.creates[0].RangeEnd = 0, []byte{0} // stays
		}
		var slow gate
		if i%4 == 3 {
			slow = run.everyFewRevisions()
		}
		name := fmt.Sprintf("%s, watcher %d, stream %d", run.server.name, i, n)
		switch {
		case i%5 == 4:
			create := run.someCreate(random)
			create.StartRevision = max(0, create.GetStartRevision())
			if invalid(create) != "" { // which the client does not pass on
				create.RangeEnd = nil
			}
			create.Filters, create.Fragment, create.ProgressNotify = nil, false, true
			session.creates = []*pb.WatchCreateRequest{create}
			session.log = watchClient(t, name, run.client, slow, create)
		case i%3 == 2:
			session.log = watchHTTP(t, name, run.server, slow, session.creates...)
		default:
			run.drive(t, session, name, slow, random)
		}
		if last {
			return session
		}
		// Some streams are cut early, others when they have said a lot.
		session.log.at(random.IntN(150), run.done)
		session.log.stop()
		run.mu.Lock()
		run.sessions = append(run.sessions, session)
		run.mu.Unlock()
	}
	return nil
}

// drive opens a stream over gRPC and asks for progress and cancels as it goes.
// It waits for the creations on etcd, where progress from before a creation
// may be told after it.
func (run *watchRun) drive(t *testing.T, session *watchSession, name string, slow gate, random *rand.Rand) {
	w := watchGRPC(t, name, run.client, slow)
	session.log = w.watchLog
	for i, create := range session.creates {
		w.create(t, create)
		if random.IntN(2) == 0 && run.better {
			w.askProgress(t)
		}
		if !run.better {
			created := 0
			w.await(t, 0, func(f *pb.WatchResponse) bool {
				if f.GetCreated() {
					created++
				}
				return created > i
			})
		}
	}
	if random.IntN(2) == 0 {
		session.cancels[0] = true
		w.cancel(t, 0)
	}
	w.cancel(t, 12345) // which nobody has
	w.askProgress(t)
}

// someCreate asks for a key, a prefix or everything, from now, from before,
// from the future, or for what nobody can have.
func (run *watchRun) someCreate(random *rand.Rand) *pb.WatchCreateRequest {
	r := &pb.WatchCreateRequest{
		Key: someKey(random), PrevKv: random.IntN(2) == 0, ProgressNotify: random.IntN(2) == 0, Fragment: random.IntN(4) == 0,
	}
	switch random.IntN(4) {
	case 0:
		r.RangeEnd = []byte{r.GetKey()[0] + 1}
		r.Key = r.GetKey()[:1]
	case 1, 2:
		r.Key, r.RangeEnd = []byte{0}, []byte{0}
	}
	switch random.IntN(8) {
	case 0:
		r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
	case 1:
		r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
	}
	current := run.revision.Load()
	switch random.IntN(20) {
	case 0:
		r.StartRevision = -1
	case 1:
		r.RangeEnd = r.GetKey()
	case 2, 3:
		r.StartRevision = 1
	case 4, 5:
		r.StartRevision = current + random.Int64N(50)
	case 6, 7, 8, 9, 10, 11:
		r.StartRevision = max(1, current-random.Int64N(300))
	}
	return r
}

// everyFewRevisions lets a reader pass when the store has made some progress,
// until the writers are done.
func (run *watchRun) everyFewRevisions() gate {
	var seen int64
	return func(ctx context.Context) {
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for run.revision.Load() < seen+20 {
			select {
			case <-ticker.C:
			case <-run.done:
				return
			case <-ctx.Done():
				return
			}
		}
		seen = run.revision.Load()
	}
}
