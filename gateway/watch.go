package gateway

import (
	"context"
	"errors"
	"math"
	"runtime"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/peer"

	"meshbridge/store"
)

// blocksPerPass bounds what one watch sends before the others of its stream, and the stream's
// requests, get their turn.
const blocksPerPass = 256

// invalidWatchID is the watch id of responses that are about no watch.
const invalidWatchID = -1

// watchSink sends the responses of a stream. Its methods block while the client does not read, which
// is all that a slow client holds up.
type watchSink interface {
	// control sends a response without events.
	control(r *pb.WatchResponse) error
	// events sends what a watch sees of the blocks, which may be nothing, and returns the number of
	// events. A revision is never spread over responses unless the watch allows fragments; the
	// revision in a response's header is the last one in it.
	events(w *watcher, blocks []*store.Block) (int, error)
	// flush sends what the calls before have buffered.
	flush() error
}

// watcher is one watch of a stream.
type watcher struct {
	id       int64
	cursor   *store.Cursor
	class    class
	start    int64 // first revision that the client wants; 0 if it did not say
	notify   bool  // progress_notify
	fragment bool
	quiet    bool // nothing was sent since the last progress interval
}

// watchStream is a stream of watches, owned by the goroutine that runs it: run takes requests, drains
// the cursors, and waits for the store to move.
type watchStream struct {
	*endpoint
	sink    watchSink
	form    form
	mayRead func(key, end []byte) error // what the client may watch
	metrics *watchMetrics
	mark    deliveryMark

	watchers map[int64]*watcher
	batch    []*store.Block // what is being sent
	nextID   int64
	asked    bool // a progress request waits for its answer
	progress *time.Ticker
}

// newWatchStream makes a stream for the client that ctx tells of.
func (e *endpoint) newWatchStream(ctx context.Context, sink watchSink, f form, m *watchMetrics) *watchStream {
	ws := &watchStream{
		endpoint: e, sink: sink, form: f, metrics: m, watchers: map[int64]*watcher{},
		mayRead: func(key, end []byte) error { return e.mayRead(ctx, key, end) },
	}
	ws.mark.form, ws.mark.since = f, time.Now()
	if p, ok := peer.FromContext(ctx); ok {
		ws.mark.peer = p.Addr.String()
	}
	return ws
}

// run serves the first requests and then those that come, until the client's side has ended, the
// endpoint stops or a response cannot be sent.
func (ws *watchStream) run(first []*pb.WatchRequest, requests <-chan *pb.WatchRequest, ended <-chan error) error {
	ws.metrics.streams.Add(1)
	defer ws.metrics.streams.Add(-1)
	defer ws.close()
	for _, request := range first {
		if err := ws.handle(request); err != nil {
			return err
		}
	}
	var (
		changed, heldBack <-chan struct{}
		served            time.Time
		took              time.Duration
		own               pace
	)
	defer own.stop()
	for {
		var err error
		wake := heldBack
		if heldBack == nil {
			var more bool
			began := time.Now()
			if changed, more, err = ws.drain(); err != nil {
				return err
			}
			served = time.Now()
			if took = served.Sub(began); more {
				changed, served = ws.ready, time.Time{} // goes on at once
			}
			wake = changed
		}
		var tick <-chan time.Time
		if ws.progress != nil {
			tick = ws.progress.C
		}
		select {
		case err := <-ended:
			return err
		case <-ws.stopping:
			return rpctypes.ErrGRPCStopped
		case request := <-requests:
			heldBack, err = nil, ws.handle(request)
		case <-tick:
			err = ws.notifyProgress()
		case <-wake:
			if heldBack != nil {
				heldBack = nil
			} else if interval := ws.interval(); took > interval {
				// A client with very many watches may keep its own stream busy for half of the time.
				heldBack = own.holdBack(served, min(took, maxPace))
			} else {
				heldBack = ws.pace.holdBack(served, interval)
			}
		}
		if err != nil {
			return err
		}
	}
}

// interval is that of the pace: as though all streams were like this one.
func (ws *watchStream) interval() time.Duration {
	wake := wakeHTTP
	if ws.form == formProto {
		wake = wakeGRPC
	}
	return paceFor(ws.delivery.count.Load(), wake, runtime.GOMAXPROCS(0))
}

// close ends all watches.
func (ws *watchStream) close() {
	for _, w := range ws.watchers {
		ws.drop(w)
	}
	if ws.progress != nil {
		ws.progress.Stop()
	}
}

func (ws *watchStream) drop(w *watcher) {
	w.cursor.Close()
	delete(ws.watchers, w.id)
	ws.mark.exclude(w.id)
	ws.metrics.watchers.Add(-1)
	if len(ws.watchers) == 0 {
		ws.delivery.leave(&ws.mark)
	}
}

// drain sends everything that is behind the cursors. It returns a channel that closes when the store
// has something new, and whether a watch had more than its share to send.
func (ws *watchStream) drain() (changed <-chan struct{}, more bool, err error) {
	position := int64(math.MaxInt64)
	for _, w := range ws.watchers {
		blocks, err := w.cursor.Next(blocksPerPass)
		if changed == nil {
			// The cursor that looked first knows of the oldest state of the store, so
			// whatever is new to any of them closes its channel.
			changed = w.cursor.Wait()
		}
		var compacted *store.CompactedError
		switch {
		case errors.As(err, &compacted):
			ws.metrics.overtaken.Add(1)
			if err := ws.cancelCompacted(w, compacted.CompactRevision); err != nil {
				return nil, false, err
			}
			continue
		case err != nil:
			return nil, false, wireError(err)
		}
		more = more || len(blocks) == blocksPerPass
		// Blocks are a part of the store's log. While a client does not read, the stream may
		// keep a few of them alive, and not the log.
		ws.batch = append(ws.batch, blocks...)
		if len(ws.batch) > 0 {
			events, err := ws.sink.events(w, ws.batch)
			if err != nil {
				return nil, false, err
			}
			ws.metrics.events.Add(int64(events))
			w.quiet = w.quiet && events == 0
			clear(ws.batch)
			ws.batch = ws.batch[:0]
		}
		position = min(position, w.cursor.Position())
	}
	if ws.asked && !more {
		ws.asked = false
		if err := ws.answerProgress(position); err != nil {
			return nil, false, err
		}
	}
	if err := ws.sink.flush(); err != nil {
		return nil, false, err
	}
	if len(ws.watchers) > 0 {
		ws.mark.advance(position)
	}
	return changed, more, nil
}

// handle serves one request of the client.
func (ws *watchStream) handle(request *pb.WatchRequest) error {
	switch r := request.GetRequestUnion().(type) {
	case *pb.WatchRequest_CreateRequest:
		return ws.create(r.CreateRequest)
	case *pb.WatchRequest_CancelRequest:
		w := ws.watchers[r.CancelRequest.GetWatchId()]
		if w == nil {
			return nil
		}
		ws.drop(w)
		return ws.sink.control(&pb.WatchResponse{
			Header: ws.header(ws.store.Revision()), WatchId: w.id, Canceled: true,
		})
	case *pb.WatchRequest_ProgressRequest:
		ws.asked = true
		return nil
	default:
		return nil
	}
}

func (ws *watchStream) create(r *pb.WatchCreateRequest) error {
	if r.GetStartRevision() < 0 {
		return ws.refuse(reasonCompacted())
	}
	key := r.GetKey()
	if len(key) == 0 {
		key = []byte{0}
	}
	if err := ws.mayRead(key, r.GetRangeEnd()); err != nil {
		return ws.refuse(reasonNotPermitted(err))
	}
	if limits := ws.cfg.Limits; len(ws.watchers) >= limits.WatchesPerStream || ws.store.Stats().Watchers >= int64(limits.Watches) {
		return ws.refuse(reasonTooManyWatches)
	}
	cursor, err := ws.store.Watch(key, r.GetRangeEnd(), r.GetStartRevision())
	var compacted *store.CompactedError
	switch {
	case errors.Is(err, store.ErrEmptyWatchRange):
		return ws.refuse(reasonEmptyWatchRange)
	case err != nil && !errors.As(err, &compacted):
		return wireError(err)
	}
	id := r.GetWatchId()
	if ws.watchers[id] != nil && id != 0 {
		if cursor != nil {
			cursor.Close()
		}
		return ws.refuse(reasonDuplicateWatchID)
	}
	if id == 0 {
		for ws.watchers[ws.nextID] != nil {
			ws.nextID++
		}
		id = ws.nextID
		ws.nextID++
	}
	if compacted != nil {
		// APISIX before 3 wants to hear of the creation and of the end in two frames.
		created := &pb.WatchResponse{Header: ws.header(ws.store.Revision()), WatchId: id, Created: true}
		if err := ws.sink.control(created); err != nil {
			return err
		}
		return ws.sink.control(ws.compactedResponse(id, compacted.CompactRevision))
	}
	w := &watcher{
		id: id, cursor: cursor, start: r.GetStartRevision(),
		notify: r.GetProgressNotify(), fragment: r.GetFragment(), quiet: true,
		class: class{form: ws.form, key: string(key), end: string(r.GetRangeEnd()), prevKV: r.GetPrevKv()},
	}
	for _, filter := range r.GetFilters() {
		switch filter {
		case pb.WatchCreateRequest_NOPUT:
			w.class.noPut = true
		case pb.WatchCreateRequest_NODELETE:
			w.class.noDelete = true
		}
	}
	if w.notify && ws.progress == nil {
		ws.progress = time.NewTicker(ws.cfg.ProgressInterval)
	}
	// Before anybody can wait for the watch, the stream says how far back it is.
	ws.mark.include(w, cursor.Position())
	ws.watchers[id] = w
	ws.metrics.watchers.Add(1)
	ws.delivery.join(&ws.mark)
	return ws.sink.control(&pb.WatchResponse{Header: ws.header(cursor.Start()), WatchId: id, Created: true})
}

// refuse answers a create request that makes no watch. The stream goes on.
func (ws *watchStream) refuse(reason string) error {
	return ws.sink.control(&pb.WatchResponse{
		Header: ws.header(ws.store.Revision()), WatchId: invalidWatchID,
		Created: true, Canceled: true, CancelReason: reason,
	})
}

// cancelCompacted ends a watch that compaction has overtaken. Unlike etcd's it is forgotten at once, so
// that the stream's other watches still get answers to progress requests.
func (ws *watchStream) cancelCompacted(w *watcher, revision int64) error {
	ws.drop(w)
	return ws.sink.control(ws.compactedResponse(w.id, revision))
}

// compactedResponse tells the client from which revision on it can watch. As in etcd its header has
// no revision.
func (ws *watchStream) compactedResponse(id, revision int64) *pb.WatchResponse {
	return &pb.WatchResponse{Header: ws.header(0), WatchId: id, Canceled: true, CompactRevision: revision}
}

// answerProgress answers a progress request after all watches were drained up to position. As in etcd
// there is no answer without watches, or while a watch waits for a revision in the future.
func (ws *watchStream) answerProgress(position int64) error {
	if len(ws.watchers) == 0 {
		return nil
	}
	for _, w := range ws.watchers {
		if position < w.start {
			return nil
		}
	}
	return ws.sink.control(&pb.WatchResponse{Header: ws.header(position), WatchId: invalidWatchID})
}

// notifyProgress sends a revision to each watch that asked for progress and has not heard anything for
// an interval. It runs after a drain, so the watch has been sent everything up to its position.
func (ws *watchStream) notifyProgress() error {
	for _, w := range ws.watchers {
		if !w.notify {
			continue
		}
		if position := w.cursor.Position(); w.quiet && position >= w.start {
			err := ws.sink.control(&pb.WatchResponse{Header: ws.header(position), WatchId: w.id})
			if err != nil {
				return err
			}
		}
		w.quiet = true
	}
	return nil
}
