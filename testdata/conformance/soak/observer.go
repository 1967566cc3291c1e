package soak

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net/http"
	"strings"
	"sync"
)

// observer is a client of an etcd port that knows all that it was ever told, and finds out whether it could
// have been misled: by a revision that went back, a revision of a key that had two contents, or a change
// that it was not told of after it resumed its watch.
type observer struct {
	name, address string
	line          *timeline

	// owned by run
	revision int64 // the newest one heard of
	contents map[string]map[int64]uint64
	seed     maphash.Seed

	mu      sync.Mutex
	objects map[string]string // guarded by mu
}

const (
	prefix    = "/apisix/"
	prefixEnd = "/apisix0"
)

func newObserver(name, address string, l *timeline) *observer {
	return &observer{name: name, address: address, line: l, contents: map[string]map[int64]uint64{}, seed: maphash.MakeSeed(), objects: map[string]string{}}
}

type keyValue struct {
	Key         []byte `json:"key"`
	Value       []byte `json:"value"`
	ModRevision int64  `json:"mod_revision,string"`
}

type header struct {
	Revision int64 `json:"revision,string"`
}

// run reads everything, and watches from there on, until ctx ends.
func (o *observer) run(ctx context.Context) {
	for read := false; wait(ctx, pollEvery); {
		if !read {
			read = o.read(ctx) == nil
			continue
		}
		read = o.watch(ctx)
	}
}

// read replaces what is known.
func (o *observer) read(ctx context.Context) error {
	objects, revision, err := readAll(ctx, o.address)
	if errors.Is(err, errEmpty) {
		o.line.fail("objects", "%s: %v", o.name, err)
	}
	if err != nil {
		return err
	}
	if revision < o.revision {
		o.line.fail("revisions", "%s: a read has revision %d after %d", o.name, revision, o.revision)
	}
	o.revision = max(o.revision, revision)
	now := make(map[string]string, len(objects))
	for _, kv := range objects {
		if kv.ModRevision > revision {
			o.line.fail("revisions", "%s: %s has revision %d in a read at %d", o.name, kv.Key, kv.ModRevision, revision)
		}
		o.learn(kv)
		now[string(kv.Key)] = string(kv.Value)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.objects = now
	return nil
}

func (o *observer) learn(kv keyValue) {
	key := string(kv.Key)
	if strings.HasSuffix(key, "/") {
		return // APISIX's own, which are the same always
	}
	seen := o.contents[key]
	if seen == nil {
		seen = map[int64]uint64{}
		o.contents[key] = seen
	}
	sum := maphash.Bytes(o.seed, kv.Value)
	if old, known := seen[kv.ModRevision]; known && old != sum {
		o.line.fail("revisions", "%s: %s had another content at revision %d", o.name, key, kv.ModRevision)
	}
	seen[kv.ModRevision] = sum
}

// watch follows a stream to its end. It returns whether the next one may go on from there; where it was
// told that history is gone, all has to be read again.
func (o *observer) watch(ctx context.Context) (resume bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	response, err := post(ctx, o.address, "/v3/watch", map[string]any{"create_request": map[string]any{
		"key": []byte(prefix), "range_end": []byte(prefixEnd), "start_revision": o.revision + 1,
	}})
	if err != nil {
		return true
	}
	defer func() { _ = response.Body.Close() }()
	scanner := bufio.NewScanner(response.Body)
	scanner.Buffer(nil, 64<<20)
	for scanner.Scan() {
		var message struct {
			Result struct {
				Header          header `json:"header"`
				Created         bool   `json:"created"`
				Canceled        bool   `json:"canceled"`
				CompactRevision int64  `json:"compact_revision,string"`
				Events          []struct {
					Type string   `json:"type"`
					KV   keyValue `json:"kv"`
				} `json:"events"`
			} `json:"result"`
		}
		if json.Unmarshal(scanner.Bytes(), &message) != nil {
			return true // cut off
		}
		r := message.Result
		switch {
		case r.Canceled:
			return false
		case r.Created || len(r.Events) == 0:
			continue
		case r.Header.Revision <= o.revision:
			o.line.fail("revisions", "%s: a frame has revision %d after %d", o.name, r.Header.Revision, o.revision)
		}
		o.revision = max(o.revision, r.Header.Revision)
		o.mu.Lock()
		for _, e := range r.Events {
			if e.KV.ModRevision > r.Header.Revision {
				o.line.fail("revisions", "%s: %s has revision %d in a frame of %d", o.name, e.KV.Key, e.KV.ModRevision, r.Header.Revision)
			}
			if e.Type == "DELETE" {
				delete(o.objects, string(e.KV.Key))
				continue
			}
			o.learn(e.KV)
			o.objects[string(e.KV.Key)] = string(e.KV.Value)
		}
		o.mu.Unlock()
	}
	return true
}

// snapshot returns what it believes to be there.
func (o *observer) snapshot() map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.objects)
}

// errEmpty would make APISIX delete all that it has.
var errEmpty = errors.New("a read of everything finds nothing")

// readAll reads the prefix as APISIX does.
func readAll(ctx context.Context, address string) ([]keyValue, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, err := post(ctx, address, "/v3/kv/range", map[string]any{"key": []byte(prefix), "range_end": []byte(prefixEnd)})
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	var body struct {
		Header header     `json:"header"`
		KVs    []keyValue `json:"kvs"`
	}
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		return nil, 0, fmt.Errorf("range: %w", err)
	}
	if len(body.KVs) == 0 {
		return nil, 0, errEmpty
	}
	return body.KVs, body.Header.Revision, nil
}

// readObjects is readAll without revisions.
func readObjects(ctx context.Context, address string) (map[string]string, error) {
	kvs, _, err := readAll(ctx, address)
	objects := make(map[string]string, len(kvs))
	for _, kv := range kvs {
		objects[string(kv.Key)] = string(kv.Value)
	}
	return objects, err
}

func post(ctx context.Context, address, path string, body any) (*http.Response, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+path, strings.NewReader(string(encoded)))
	if err != nil {
		return nil, err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("%s: %s", path, response.Status)
	}
	return response, nil
}
