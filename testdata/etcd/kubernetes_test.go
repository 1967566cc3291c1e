package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A Kubernetes API server finds in the store all that it relies on: objects are
// created, changed and deleted only as they were last seen, lists go page by
// page at one revision, caches follow by watching and know how far they are,
// events end with a shared lease, and old revisions are compacted by one of
// several servers.
func TestKubernetesFindsWhatItReliesOn(t *testing.T) {
	t.Parallel()
	s := startMeshbridge(t, progressNotifyFlag, progressInterval)
	k := &apiServer{T: t, client: s.client(t), ctx: soon(t)}
	status, err := k.client.Status(k.ctx, s.address)
	if err != nil || status.Version < "3.5.13" || status.DbSize == 0 {
		t.Errorf("status: %+v, %v; progress can be asked for from 3.5.13 on", status, err)
	}

	// A list of many objects, and a cache that starts from it.
	const pods = 1200
	for i := range pods {
		if _, ok := k.update(pod(i), 0, "phase=0"); !ok {
			t.Fatalf("%s exists", pod(i))
		}
	}
	if _, ok := k.update(pod(0), 0, "again"); ok {
		t.Error("an object that exists was created")
	}
	listed, revision := k.list("/registry/pods/", 500)
	if len(listed) != pods {
		t.Errorf("%d objects listed, want %d", len(listed), pods)
	}
	cached := cacheFrom(k, "/registry/pods/", listed, revision)

	// Many change the same objects at the same time.
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 50 {
				k.guaranteedUpdate(pod(i))
				if w == 0 {
					k.remove(pod(pods - 1 - i))
				}
			}
		})
	}
	writers.Wait()
	want, current := k.list("/registry/pods/", 500)
	cached.reach(current)
	if diff := cmp.Diff(values(want), values(cached.objects)); diff != "" {
		t.Errorf("the cache differs from the list (-list +cache):\n%s", diff)
	}
	for i := range 50 {
		if got := string(want[pod(i)].value); got != "phase=4" {
			t.Errorf("%s is %s after four updates", pod(i), got)
		}
	}
	if len(want) != pods-50 {
		t.Errorf("%d objects, want %d", len(want), pods-50)
	}

	// Events live as long as the lease that they share.
	lease, err := k.client.Grant(k.ctx, 3600)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if _, err := k.client.Put(k.ctx, fmt.Sprintf("/registry/events/%d", i), "e", clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
	}
	ended, err := k.client.Revoke(k.ctx, lease.ID)
	if err != nil {
		t.Fatal(err)
	}
	if events, at := k.list("/registry/events/", 500); len(events) != 0 || at != ended.Header.GetRevision() {
		t.Errorf("%d events at revision %d, want none at %d", len(events), at, ended.Header.GetRevision())
	}

	// Of two servers that compact, one does.
	first, version := k.compact(0, current)
	second, seen := k.compact(0, current)
	if !first || second || version != seen {
		t.Errorf("compactions: %t for version %d, %t for version %d", first, version, second, seen)
	}
	if _, err := k.client.Get(k.ctx, pod(1), clientv3.WithRev(revision)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a list from before the compaction: %v", err)
	}
	if r := <-k.client.Watch(cached.watching, "/registry/", clientv3.WithPrefix(), clientv3.WithRev(revision)); r.CompactRevision != current || !errors.Is(r.Err(), rpctypes.ErrCompacted) {
		t.Errorf("a watch from before the compaction: %+v", r)
	}
	_, now := k.list("/registry/pods/", 500)
	cached.reach(now) // goes on, although its stream had a compacted neighbour
}

func pod(i int) string { return fmt.Sprintf("/registry/pods/default/pod-%04d", i) }

// apiServer makes the requests of a Kubernetes API server.
type apiServer struct {
	*testing.T

	client *clientv3.Client
	ctx    context.Context //nolint:containedctx // of the test
}

// object is a value and the revision at which it was written.
type object struct {
	value    []byte
	revision int64
}

func values(objects map[string]object) map[string]string {
	out := make(map[string]string, len(objects))
	for key, o := range objects {
		out[key] = fmt.Sprintf("%s at %d", o.value, o.revision)
	}
	return out
}

// update writes an object if it is as it was seen, and returns it as it is
// otherwise. One seen at 0 does not exist.
func (k *apiServer) update(key string, seen int64, value string) (object, bool) {
	r, err := k.client.Txn(k.ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", seen)).
		Then(clientv3.OpPut(key, value)).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		k.Errorf("update %s: %v", key, err)
		return object{}, true
	}
	if r.Succeeded {
		return object{[]byte(value), r.Header.GetRevision()}, true
	}
	kv := r.Responses[0].GetResponseRange().GetKvs()[0]
	return object{kv.GetValue(), kv.GetModRevision()}, false
}

// guaranteedUpdate counts an object's phase up, however often others are first.
func (k *apiServer) guaranteedUpdate(key string) {
	r, err := k.client.Get(k.ctx, key)
	if err != nil || len(r.Kvs) != 1 {
		k.Errorf("get %s: %v, %v", key, r, err)
		return
	}
	seen := object{r.Kvs[0].Value, r.Kvs[0].ModRevision}
	for ok := false; !ok; {
		phase, err := strconv.Atoi(strings.TrimPrefix(string(seen.value), "phase="))
		if err != nil {
			k.Errorf("%s: %v", key, err)
			return
		}
		seen, ok = k.update(key, seen.revision, fmt.Sprint("phase=", phase+1))
	}
}

// remove deletes an object as it is, and returns only when it is gone.
func (k *apiServer) remove(key string) {
	r, err := k.client.Get(k.ctx, key)
	if err != nil || len(r.Kvs) != 1 {
		k.Errorf("get %s: %v, %v", key, r, err)
		return
	}
	d, err := k.client.Txn(k.ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", r.Kvs[0].ModRevision)).
		Then(clientv3.OpDelete(key)).Else(clientv3.OpGet(key)).Commit()
	if err != nil || !d.Succeeded || d.Responses[0].GetResponseDeleteRange().GetDeleted() != 1 {
		k.Errorf("delete %s: %v, %v", key, d, err)
	}
}

// list reads page after page at the revision of the first.
func (k *apiServer) list(prefix string, limit int64) (objects map[string]object, revision int64) {
	objects = map[string]object{}
	key, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		r, err := k.client.Get(k.ctx, key, clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(revision))
		if err != nil {
			k.Fatalf("list %s: %v", key, err)
		}
		if revision == 0 {
			revision = r.Header.GetRevision()
		}
		if remaining := r.Count - int64(len(r.Kvs)); r.More != (remaining > 0) {
			k.Errorf("a page of %d of %d says more: %t", len(r.Kvs), r.Count, r.More)
		}
		for _, kv := range r.Kvs {
			objects[string(kv.Key)] = object{kv.Value, kv.ModRevision}
		}
		if !r.More {
			return objects, revision
		}
		key = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// compact compacts if nobody else has since version of the common key was seen.
// It returns the version that the key has now.
func (k *apiServer) compact(version, revision int64) (done bool, now int64) {
	const key = "compact_rev_key"
	r, err := k.client.Txn(k.ctx).If(clientv3.Compare(clientv3.Version(key), "=", version)).
		Then(clientv3.OpPut(key, strconv.FormatInt(revision, 10))).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		k.Fatalf("compact: %v", err)
	}
	if !r.Succeeded {
		return false, r.Responses[0].GetResponseRange().GetKvs()[0].Version
	}
	if _, err := k.client.Compact(k.ctx, revision); err != nil {
		k.Errorf("compact: %v", err)
	}
	return true, version + 1
}

// watchCache is a copy of a prefix that follows a watch.
type watchCache struct {
	*apiServer

	watching context.Context //nolint:containedctx // names the stream whose progress is asked for
	events   clientv3.WatchChan
	objects  map[string]object
	revision int64
}

func cacheFrom(k *apiServer, prefix string, objects map[string]object, revision int64) *watchCache {
	ctx := clientv3.WithRequireLeader(k.ctx)
	return &watchCache{
		apiServer: k, watching: ctx, objects: maps.Clone(objects), revision: revision,
		events: k.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1), clientv3.WithPrevKV(), clientv3.WithProgressNotify()),
	}
}

// reach follows the watch until it has everything up to a revision, asking for
// progress every now and then, as it hears of no change outside its prefix.
func (c *watchCache) reach(revision int64) {
	c.Helper()
	ask := time.NewTicker(100 * time.Millisecond)
	defer ask.Stop()
	for c.revision < revision {
		select {
		case r, ok := <-c.events:
			if !ok || r.Err() != nil {
				c.Fatalf("the watch ended at revision %d: %v", c.revision, r.Err())
			}
			for _, e := range r.Events {
				c.apply(e)
			}
			c.revision = r.Header.GetRevision()
		case <-ask.C:
			if err := c.client.RequestProgress(c.watching); err != nil {
				c.Fatalf("asking for progress: %v", err)
			}
		case <-c.ctx.Done():
			c.Fatalf("the watch is at revision %d, want %d", c.revision, revision)
		}
	}
}

func (c *watchCache) apply(e *clientv3.Event) {
	key := string(e.Kv.Key)
	if before, ok := c.objects[key]; ok != (e.PrevKv != nil) || ok && before.revision != e.PrevKv.ModRevision {
		c.Errorf("%s was %v before %v", key, before, e)
	}
	if e.Type == clientv3.EventTypeDelete {
		delete(c.objects, key)
		return
	}
	c.objects[key] = object{e.Kv.Value, e.Kv.ModRevision}
}
