package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// Event is one change as a watcher is told of it.
type Event struct {
	Key string
	// Value is empty for a removal.
	Value   string
	Deleted bool
	// ModRevision is the revision of the change, and HeaderRevision that of
	// the frame it came in, which APISIX goes by.
	ModRevision, HeaderRevision int64
}

// Frame is one message of a watch.
type Frame struct {
	Revision        int64
	Created         bool
	Canceled        bool
	CompactRevision int64
	Events          []Event
}

// Watch is a watch of the whole prefix over HTTP.
type Watch struct {
	frames chan Frame // unbuffered; closed when the stream ends
	err    error      // why it ended; read after frames is closed
	cancel context.CancelFunc
	ended  chan struct{}
}

// Watch opens a watch from a revision, 0 for what is to come, and returns once
// the server says it is created. It ends with the test.
func (b *Bridge) Watch(t testing.TB, from int64) *Watch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	request := map[string]any{"key": []byte(Prefix), "range_end": []byte(prefixEnd)}
	if from > 0 {
		request["start_revision"] = from
	}
	response, err := b.open(ctx, "/v3/watch", map[string]any{"create_request": request})
	if err != nil {
		cancel()
		t.Fatalf("watch: %v", err)
	}
	w := &Watch{frames: make(chan Frame), cancel: cancel, ended: make(chan struct{})}
	go w.read(ctx, response)
	t.Cleanup(w.Close)
	if first := w.Next(t); !first.Created {
		t.Fatalf("watch: first frame %+v, want created", first)
	}
	return w
}

func (w *Watch) read(ctx context.Context, response *http.Response) {
	defer close(w.ended)
	defer close(w.frames)
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		w.err = fmt.Errorf("watch: HTTP %s", response.Status)
		return
	}
	scanner := bufio.NewScanner(response.Body)
	scanner.Buffer(nil, 256<<20)
	for scanner.Scan() {
		frame, err := parseFrame(scanner.Bytes())
		if err != nil {
			w.err = err
			return
		}
		select {
		case w.frames <- frame:
		case <-ctx.Done():
			return
		}
	}
	w.err = scanner.Err()
}

func parseFrame(line []byte) (Frame, error) {
	var message struct {
		Result *struct {
			Header          header
			Created         bool  `json:"created"`
			Canceled        bool  `json:"canceled"`
			CompactRevision int64 `json:"compact_revision,string"`
			Events          []struct {
				Type string   `json:"type"`
				KV   keyValue `json:"kv"`
			} `json:"events"`
		} `json:"result"`
	}
	if err := json.Unmarshal(line, &message); err != nil || message.Result == nil {
		return Frame{}, fmt.Errorf("watch: unexpected message %s", line)
	}
	r := message.Result
	frame := Frame{Revision: r.Header.Revision, Created: r.Created, Canceled: r.Canceled, CompactRevision: r.CompactRevision}
	for _, e := range r.Events {
		frame.Events = append(frame.Events, Event{
			Key: string(e.KV.Key), Value: string(e.KV.Value), Deleted: e.Type == "DELETE",
			ModRevision: e.KV.ModRevision, HeaderRevision: frame.Revision,
		})
	}
	return frame, nil
}

// Next returns the next frame.
func (w *Watch) Next(t testing.TB) Frame {
	t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	select {
	case frame, open := <-w.frames:
		if !open {
			t.Fatalf("the watch ended: %v", w.err)
		}
		return frame
	case <-timeout.C:
		t.Fatalf("no frame of the watch within %v", Patience)
		return Frame{}
	}
}

// Until collects events, over as many frames as it takes, up to and including
// the first that accept returns true for.
func (w *Watch) Until(t testing.TB, what string, accept func(Event) bool) []Event {
	t.Helper()
	var events []Event
	deadline := time.Now().Add(Patience)
	for time.Now().Before(deadline) {
		frame := w.Next(t)
		events = append(events, frame.Events...)
		if slices.ContainsFunc(frame.Events, accept) {
			return events
		}
	}
	t.Fatalf("%s: not among %d events:\n%s", what, len(events), Describe(events))
	return nil
}

// Close ends the watch.
func (w *Watch) Close() {
	w.cancel()
	<-w.ended
}

// Describe lists events, one per line.
func Describe(events []Event) string {
	var b strings.Builder
	for _, e := range events {
		verb := "put"
		if e.Deleted {
			verb = "delete"
		}
		fmt.Fprintf(&b, "%d %s %s %s\n", e.ModRevision, verb, e.Key, e.Value)
	}
	return b.String()
}
