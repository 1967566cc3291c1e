package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// written is what was really written: the truth that watches have to tell.
type written struct {
	base      int64             // the revision before the first event
	events    [][]*mvccpb.Event // of revision base+1, base+2 and so on, each with the key's previous value
	compacted []int64           // revisions that were
}

func (w *written) last() int64 { return w.base + int64(len(w.events)) }

// watchChecker follows one watch stream and says where it breaks a promise of
// the etcd API: a watch's events come in order, once, without a gap, and those
// of one revision together; a bookmark says that everything before it was
// sent; filters filter, previous values are right, responses start with the
// creation and end with the cancellation, which names its reason.
type watchChecker struct {
	truth   *written
	creates []*pb.WatchCreateRequest // as sent
	cancels map[int64]bool           // ids whose end the client has asked for
	// better is whether the promises of meshbridge hold that etcd does not make;
	// see headerOfCatchUp, headerOfCreation and compactedWatch.
	better bool

	created int // requests that were answered
	live    map[int64]*checkedWatch
	// compacted watches can still be canceled in etcd.
	compacted map[int64]bool
}

// checkedWatch is a watch of the stream.
type checkedWatch struct {
	request  *pb.WatchCreateRequest
	start    int64
	expected []*mvccpb.Event // that were not seen yet
	sent     int64           // revision of the last event or bookmark
	open     int64           // the revision that fragments have not completed; 0 is none
}

func newWatchChecker(truth *written, creates []*pb.WatchCreateRequest, cancels map[int64]bool, better bool) *watchChecker {
	return &watchChecker{
		truth: truth, creates: creates, cancels: cancels, better: better,
		live: map[int64]*checkedWatch{}, compacted: map[int64]bool{},
	}
}

// frame checks the next response.
func (c *watchChecker) frame(f *pb.WatchResponse) error {
	if f.GetCreated() {
		return c.create(f)
	}
	if f.GetWatchId() == -1 {
		// In etcd progress may overtake the creation of the stream's only watch.
		if len(f.GetEvents()) > 0 || f.GetCanceled() || len(c.live) == 0 && c.better {
			return errors.New("a progress response that is none")
		}
		for id, w := range c.live {
			if err := w.bookmark(f.GetHeader().GetRevision()); err != nil {
				return fmt.Errorf("watch %d, %v: %w", id, w.request, err)
			}
		}
		return nil
	}
	w := c.live[f.GetWatchId()]
	switch {
	case w == nil && !c.better && f.GetCanceled() && c.compacted[f.GetWatchId()]:
		return nil
	case w == nil:
		return fmt.Errorf("watch %d does not exist", f.GetWatchId())
	}
	var err error
	switch {
	case f.GetCanceled():
		delete(c.live, f.GetWatchId())
		c.compacted[f.GetWatchId()] = f.GetCompactRevision() != 0
		err = c.canceled(w, f)
	case len(f.GetEvents()) == 0:
		if !w.request.GetProgressNotify() {
			return fmt.Errorf("watch %d is told progress that it did not ask for", f.GetWatchId())
		}
		err = w.bookmark(f.GetHeader().GetRevision())
	default:
		err = c.events(w, f)
	}
	if err != nil {
		return fmt.Errorf("watch %d, %v: %w", f.GetWatchId(), w.request, err)
	}
	return nil
}

func (c *watchChecker) create(f *pb.WatchResponse) error {
	if c.created == len(c.creates) {
		return errors.New("a watch that nobody asked for")
	}
	request, id, revision := c.creates[c.created], f.GetWatchId(), f.GetHeader().GetRevision()
	c.created++
	if len(f.GetEvents()) > 0 {
		return errors.New("events in the response that creates a watch")
	}
	if f.GetCanceled() {
		if id != -1 || f.GetCancelReason() != c.refusal(request) || f.GetCancelReason() == "" {
			return fmt.Errorf("create %v was refused as %d with %q, want %q", request, id, f.GetCancelReason(), c.refusal(request))
		}
		return nil
	}
	switch {
	case c.refusal(request) != "":
		return fmt.Errorf("create %v was accepted, want %q", request, c.refusal(request))
	case c.live[id] != nil, request.GetWatchId() != 0 && id != request.GetWatchId():
		return fmt.Errorf("create %v got the id %d", request, id)
	case revision < c.truth.base, revision > c.truth.last():
		return fmt.Errorf("created at revision %d, which never was", revision)
	}
	w := &checkedWatch{request: request, start: request.GetStartRevision()}
	if w.start == 0 {
		w.start = revision + 1
	}
	w.expect(c.truth)
	c.live[id] = w
	return nil
}

// expect works out the events from the start on.
func (w *checkedWatch) expect(truth *written) {
	w.expected = nil
	for r := max(w.start, truth.base+1); r <= truth.last(); r++ {
		for _, e := range truth.events[r-truth.base-1] {
			if w.wants(e) {
				w.expected = append(w.expected, e)
			}
		}
	}
}

// refusal is the reason for which a request makes no watch, or none.
func (c *watchChecker) refusal(r *pb.WatchCreateRequest) string {
	id := r.GetWatchId()
	if id != 0 && (c.live[id] != nil || !c.better && c.compacted[id]) && invalid(r) == "" {
		return "mvcc: duplicate watch ID provided on the WatchStream"
	}
	return invalid(r)
}

// invalid is the reason for which a request makes no watch on any stream.
func invalid(r *pb.WatchCreateRequest) string {
	end := r.GetRangeEnd()
	switch {
	case r.GetStartRevision() < 0:
		return "etcdserver: mvcc: required revision has been compacted"
	case len(end) > 0 && !bytes.Equal(end, []byte{0}) && bytes.Compare(r.GetKey(), end) >= 0:
		return "mvcc: watcher range is empty"
	}
	return ""
}

// wants tells whether the watch is about an event.
func (w *checkedWatch) wants(e *mvccpb.Event) bool {
	filter := pb.WatchCreateRequest_NOPUT
	if e.GetType() == mvccpb.Event_DELETE {
		filter = pb.WatchCreateRequest_NODELETE
	}
	if slices.Contains(w.request.GetFilters(), filter) {
		return false
	}
	key, end := w.request.GetKey(), w.request.GetRangeEnd()
	if len(end) == 0 {
		return bytes.Equal(e.GetKv().GetKey(), key)
	}
	return bytes.Compare(key, e.GetKv().GetKey()) <= 0 &&
		(bytes.Equal(end, []byte{0}) || bytes.Compare(e.GetKv().GetKey(), end) < 0)
}

// bookmark checks the claim that everything up to a revision was sent.
func (w *checkedWatch) bookmark(revision int64) error {
	switch {
	case revision < w.request.GetStartRevision(), revision < w.start-1:
		return fmt.Errorf("progress to %d of a watch from %d", revision, w.start)
	case w.open != 0:
		return fmt.Errorf("progress to %d between the fragments of %d", revision, w.open)
	case len(w.expected) > 0 && w.expected[0].GetKv().GetModRevision() <= revision:
		return fmt.Errorf("progress to %d before %v", revision, w.expected[0])
	}
	w.sent = max(w.sent, revision)
	return nil
}

// canceled checks why a watch ends.
func (c *watchChecker) canceled(w *checkedWatch, f *pb.WatchResponse) error {
	compacted := f.GetCompactRevision()
	switch {
	case len(f.GetEvents()) > 0:
		return errors.New("events in the response that cancels a watch")
	case compacted == 0 && !c.cancels[f.GetWatchId()]:
		return fmt.Errorf("canceled without a reason: %v", f)
	case compacted == 0:
		return nil
	case !slices.Contains(c.truth.compacted, compacted):
		return fmt.Errorf("canceled by a compaction at %d, which never was", compacted)
	case f.GetHeader().GetRevision() != 0, f.GetCancelReason() != "":
		return fmt.Errorf("canceled by a compaction with a revision or a reason: %v", f)
	case max(w.start, w.sent+1) >= compacted:
		return fmt.Errorf("canceled by the compaction at %d, which took nothing from it", compacted)
	}
	return nil
}

func (c *watchChecker) events(w *checkedWatch, f *pb.WatchResponse) error {
	if first := revisionOf(f.GetEvents()[0]); !c.better && w.request.GetStartRevision() == 0 && w.sent == 0 && first < w.start {
		w.start = first
		w.expect(c.truth)
	}
	var last int64
	for _, e := range f.GetEvents() {
		if len(w.expected) == 0 {
			return fmt.Errorf("%v was never written or was sent before", e)
		}
		want := w.expected[0]
		if err := c.same(w, e, want); err != nil {
			return err
		}
		last = want.GetKv().GetModRevision()
		w.expected = w.expected[1:]
	}
	more := len(w.expected) > 0 && w.expected[0].GetKv().GetModRevision() == last
	switch {
	case f.GetFragment() && !w.request.GetFragment():
		return errors.New("a fragment that was not asked for")
	case more && !f.GetFragment():
		return fmt.Errorf("revision %d is not complete", last)
	case f.GetHeader().GetRevision() < last:
		return fmt.Errorf("events of %d in a response of %d", last, f.GetHeader().GetRevision())
	}
	w.open, w.sent = 0, max(w.sent, last)
	if f.GetFragment() {
		w.open = last
		return nil
	}
	if c.better {
		if err := w.bookmark(f.GetHeader().GetRevision()); err != nil {
			return fmt.Errorf("the header of events: %w", err)
		}
	}
	return nil
}

// same compares an event with the one that has to come.
func (c *watchChecker) same(w *checkedWatch, got, want *mvccpb.Event) error {
	if got.GetType() != want.GetType() || !proto.Equal(got.GetKv(), want.GetKv()) {
		return fmt.Errorf("event %v, want %v", got, want)
	}
	switch prev := got.GetPrevKv(); {
	case !w.request.GetPrevKv() && prev != nil:
		return fmt.Errorf("a previous value that was not asked for in %v", got)
	case !w.request.GetPrevKv(), proto.Equal(prev, want.GetPrevKv()):
		return nil
	case prev == nil && len(c.truth.compacted) > 0 && slices.Max(c.truth.compacted) >= want.GetKv().GetModRevision():
		return nil // forgotten
	default:
		return fmt.Errorf("previous value %v in %v, want %v", prev, got, want.GetPrevKv())
	}
}

// missing is how many events the watches of the stream still have to send, and
// how many requests have no answer.
func (c *watchChecker) missing() int {
	missing := len(c.creates) - c.created
	for _, w := range c.live {
		missing += len(w.expected)
	}
	return missing
}

// checkFrames checks all that a stream has received.
func checkFrames(c *watchChecker, frames []*pb.WatchResponse) error {
	for i, f := range frames {
		if err := c.frame(f); err != nil {
			return fmt.Errorf("response %d: %w", i, err)
		}
	}
	return nil
}

// The checker accepts what a right server sends, and rejects each way of
// getting it wrong.
func TestWatchCheckerRejectsBrokenStreams(t *testing.T) {
	kv := func(key string, revision int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(key), Value: []byte("v"), CreateRevision: revision, ModRevision: revision, Version: 1}
	}
	put := func(key string, revision int64, prev *mvccpb.KeyValue) *mvccpb.Event {
		return &mvccpb.Event{Kv: kv(key, revision), PrevKv: prev}
	}
	gone := func(key string, revision int64, prev *mvccpb.KeyValue) *mvccpb.Event {
		return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision}, PrevKv: prev}
	}
	truth := &written{base: 1, compacted: []int64{3}, events: [][]*mvccpb.Event{
		{put("a", 2, nil)},
		{put("b", 3, nil), put("c", 3, nil)},
		{gone("a", 4, kv("a", 2))},
		{put("x", 5, nil)},
		{put("a", 6, nil), gone("b", 6, kv("b", 3))},
	}}
	header := func(revision int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: revision} }
	events := func(revision int64, events ...*mvccpb.Event) *pb.WatchResponse {
		return &pb.WatchResponse{Header: header(revision), Events: events}
	}
	all := truth.events
	creates := []*pb.WatchCreateRequest{{Key: []byte("a"), RangeEnd: []byte("d"), StartRevision: 2, PrevKv: true}}
	good := []*pb.WatchResponse{
		{Header: header(4), Created: true},
		events(3, all[0][0], all[1][0], all[1][1]),
		events(4, all[2][0]),
		{Header: header(5), WatchId: -1},
		events(6, all[4]...),
		{Header: header(6), Canceled: true},
	}
	cancels := map[int64]bool{0: true}
	if err := checkFrames(newWatchChecker(truth, creates, cancels, true), good); err != nil {
		t.Fatalf("a right stream is rejected: %v", err)
	}
	for name, doctor := range map[string]func(f []*pb.WatchResponse) []*pb.WatchResponse{
		"event dropped": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[1].Events = f[1].Events[1:]
			return f
		},
		"event dropped at the end of a revision": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[1].Events = f[1].Events[:2]
			return f
		},
		"response dropped": func(f []*pb.WatchResponse) []*pb.WatchResponse { return slices.Delete(f, 2, 3) },
		"event duplicated": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[1].Events = append(f[1].Events, f[1].Events[2])
			return f
		},
		"response duplicated": func(f []*pb.WatchResponse) []*pb.WatchResponse { return slices.Insert(f, 2, f[1]) },
		"events reordered": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			slices.Reverse(f[4].Events)
			return f
		},
		"responses reordered": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[1], f[2] = f[2], f[1]
			return f
		},
		"revision split": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			return slices.Replace(f, 4, 5, events(6, all[4][0]), events(6, all[4][1]))
		},
		"fragments that were not asked for": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			first := events(6, all[4][0])
			first.Fragment = true
			return slices.Replace(f, 4, 5, first, events(6, all[4][1]))
		},
		"event of another key": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			return slices.Insert(f, 3, events(5, all[3]...))
		},
		"early bookmark": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[3].Header.Revision = 6
			return f
		},
		"bookmark nobody asked for": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[3].WatchId = 0
			return f
		},
		"header ahead of the events": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[1].Header.Revision = 4
			return f
		},
		"header behind the events": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[4].Header.Revision = 5
			return f
		},
		"previous value missing": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[4].Events[1].PrevKv = nil
			return f
		},
		"previous value wrong": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[2].Events[0].PrevKv.Value = []byte("w")
			return f
		},
		"value wrong": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[1].Events[0].Kv.Value = []byte("w")
			return f
		},
		"put for delete": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[2].Events[0].Type = mvccpb.Event_PUT
			return f
		},
		"events before the creation": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[0], f[1] = f[1], f[0]
			return f
		},
		"created twice": func(f []*pb.WatchResponse) []*pb.WatchResponse { return slices.Insert(f, 1, f[0]) },
		"other id":      func(f []*pb.WatchResponse) []*pb.WatchResponse { f[2].WatchId = 1; return f },
		"events after the end": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[4], f[5] = f[5], f[4]
			return f
		},
		"canceled by a compaction that never was": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[5].CompactRevision, f[5].Header.Revision = 5, 0
			return f
		},
		"canceled by a compaction of what was sent": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			f[5].CompactRevision, f[5].Header.Revision = 3, 0
			return f
		},
		"refused without reason": func(f []*pb.WatchResponse) []*pb.WatchResponse {
			return []*pb.WatchResponse{{Header: header(4), Created: true, Canceled: true, WatchId: -1}}
		},
	} {
		var doctored []*pb.WatchResponse
		for _, f := range good {
			doctored = append(doctored, proto.Clone(f).(*pb.WatchResponse))
		}
		if err := checkFrames(newWatchChecker(truth, creates, cancels, true), doctor(doctored)); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
	c := newWatchChecker(truth, creates, nil, true)
	if err := checkFrames(c, good[:3]); err != nil || c.missing() != 2 {
		t.Errorf("a stream that stops early: %v, %d events missing, want 2", err, c.missing())
	}
	if err := checkFrames(newWatchChecker(truth, creates, nil, true), good); err == nil {
		t.Error("a watch that ends for no reason: not noticed")
	}
}
