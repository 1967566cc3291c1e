package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
)

// The recipes of etcd's own client are exacting users of leases, transactions
// and watches. These tests are about meshbridge alone: they say what has to
// happen.

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// openSession is a session that the test does not have to close. The lease of
// one that is lost lives for another two seconds.
func openSession(t *testing.T, client *clientv3.Client) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(client, concurrency.WithTTL(2), concurrency.WithContext(soon(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestMutexExcludes(t *testing.T) {
	t.Parallel()
	s := startMeshbridge(t)
	ctx := soon(t)
	var (
		all     sync.WaitGroup
		inside  sync.Mutex // held only where the other mutex is
		counter int
	)
	for range 8 {
		client := s.client(t)
		session := openSession(t, client)
		all.Go(func() {
			for range 10 {
				m := concurrency.NewMutex(session, "/mutex")
				if err := m.Lock(ctx); err != nil {
					t.Errorf("lock: %v", err)
					return
				}
				if !inside.TryLock() {
					t.Error("two clients have the lock")
					return
				}
				counter++
				inside.Unlock()
				if err := m.Unlock(ctx); err != nil {
					t.Errorf("unlock: %v", err)
				}
			}
		})
	}
	all.Wait()
	if counter != 80 {
		t.Errorf("the lock was had %d times, want 80", counter)
	}
}

func TestMutexOfALostSession(t *testing.T) {
	t.Parallel()
	client := startMeshbridge(t).client(t)
	ctx := soon(t)
	lost := openSession(t, client)
	held, waiting := concurrency.NewMutex(lost, "/m"), concurrency.NewMutex(openSession(t, client), "/m")
	if err := held.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	if err := waiting.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		t.Errorf("TryLock of a mutex that is held: %v", err)
	}
	lost.Orphan() // its lease is kept alive no more, and expires
	if err := waiting.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost.Done():
	case <-ctx.Done():
		t.Error("the lost session does not know")
	}
	if err := held.TryLock(ctx); err == nil {
		t.Error("a lost session got a lock")
	}
	response, err := client.Get(ctx, "/m/", clientv3.WithPrefix())
	if err != nil || len(response.Kvs) != 1 || string(response.Kvs[0].Key) != waiting.Key() {
		t.Errorf("%v, %v; want %s alone", response, err, waiting.Key())
	}
}

func TestElection(t *testing.T) {
	t.Parallel()
	client := startMeshbridge(t).client(t)
	ctx := soon(t)
	sessions := []*concurrency.Session{openSession(t, client), openSession(t, client), openSession(t, client)}
	candidates := make([]*concurrency.Election, len(sessions))
	for i, s := range sessions {
		candidates[i] = concurrency.NewElection(s, "/e")
	}
	if _, err := candidates[0].Leader(ctx); !errors.Is(err, concurrency.ErrElectionNoLeader) {
		t.Errorf("leader of nobody: %v", err)
	}
	observed := concurrency.NewElection(openSession(t, client), "/e").Observe(ctx)
	if err := candidates[0].Campaign(ctx, "zero"); err != nil {
		t.Fatal(err)
	}
	sees := func(want string) {
		t.Helper()
		for r := range observed {
			if got := string(r.Kvs[0].Value); got == want {
				return
			}
		}
		t.Fatalf("the observer never sees %s", want)
	}
	sees("zero")
	if err := candidates[0].Proclaim(ctx, "still zero"); err != nil {
		t.Fatal(err)
	}
	sees("still zero")
	won := make(chan error, 2)
	var campaigns sync.WaitGroup
	defer campaigns.Wait()
	// One after the other: the order in which they ask is the order in which they win.
	for i := 1; i <= 2; i++ {
		campaigns.Go(func() { won <- candidates[i].Campaign(ctx, fmt.Sprint("candidate ", i)) })
		for n := int64(0); n != int64(i+1); {
			r, err := client.Get(ctx, "/e/", clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err != nil {
				t.Fatal(err)
			}
			n = r.Count
		}
	}
	if err := candidates[0].Resign(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-won; err != nil {
		t.Fatal(err)
	}
	sees("candidate 1")
	sessions[1].Orphan() // fails over when the lease ends
	if err := <-won; err != nil {
		t.Fatal(err)
	}
	sees("candidate 2")
}

// Concurrent transfers between accounts lose no money, at any isolation level
// that promises so.
func TestSTM(t *testing.T) {
	t.Parallel()
	s := startMeshbridge(t)
	ctx := soon(t)
	for name, level := range map[string]concurrency.Isolation{
		"serializable snapshot": concurrency.SerializableSnapshot, "serializable": concurrency.Serializable,
		"repeatable reads": concurrency.RepeatableReads,
	} {
		t.Run(name, func(t *testing.T) {
			const accounts, balance = 5, 100
			client := s.client(t)
			account := func(i int) string { return fmt.Sprintf("/%s/%d", name, i) }
			for i := range accounts {
				if _, err := client.Put(ctx, account(i), strconv.Itoa(balance)); err != nil {
					t.Fatal(err)
				}
			}
			var all sync.WaitGroup
			for range 6 {
				all.Go(func() {
					for range 20 {
						from, to := rand.IntN(accounts), rand.IntN(accounts)
						transfer := func(stm concurrency.STM) error {
							amount := rand.IntN(10)
							a, errA := strconv.Atoi(stm.Get(account(from)))
							b, errB := strconv.Atoi(stm.Get(account(to)))
							if from == to {
								return errors.Join(errA, errB)
							}
							stm.Put(account(from), strconv.Itoa(a-amount))
							stm.Put(account(to), strconv.Itoa(b+amount))
							return errors.Join(errA, errB)
						}
						if _, err := concurrency.NewSTM(client, transfer, concurrency.WithIsolation(level), concurrency.WithAbortContext(ctx)); err != nil {
							t.Errorf("transfer: %v", err)
							return
						}
					}
				})
			}
			all.Wait()
			sum := 0
			r, err := client.Get(ctx, "/"+name+"/", clientv3.WithPrefix())
			if err != nil {
				t.Fatal(err)
			}
			for _, kv := range r.Kvs {
				n, err := strconv.Atoi(string(kv.Value))
				if err != nil {
					t.Error(err)
				}
				sum += n
			}
			if sum != accounts*balance {
				t.Errorf("%d in all accounts, want %d", sum, accounts*balance)
			}
		})
	}
	client := s.client(t)
	increment := func(stm concurrency.STM) error {
		n, _ := strconv.Atoi(stm.Get("n")) // absent is zero
		stm.Put("n", strconv.Itoa(n+1))
		return nil
	}
	if _, err := concurrency.NewSTM(client, increment, concurrency.WithIsolation(concurrency.ReadCommitted)); err != nil {
		t.Errorf("read committed: %v", err)
	}
}

func TestLeaseIsKeptAliveByTheClient(t *testing.T) {
	t.Parallel()
	client := startMeshbridge(t).client(t)
	ctx := soon(t)
	lease, err := client.Grant(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(ctx, "k", "v", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	keeping, stop := context.WithCancel(ctx)
	defer stop()
	alive, err := client.KeepAlive(keeping, lease.ID)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // a third of the time to live each
		if r := <-alive; r == nil || r.TTL != 2 {
			t.Fatalf("keep-alive: %v", r)
		}
	}
	if r, err := client.Get(ctx, "k"); err != nil || r.Count != 1 {
		t.Errorf("the key of a lease that is kept alive: %v, %v", r, err)
	}
	stop()
	watched := client.Watch(ctx, "k", clientv3.WithRev(3))
	if r := <-watched; len(r.Events) != 1 || r.Events[0].Type != clientv3.EventTypeDelete {
		t.Errorf("the end of the lease: %v", r)
	}
	if _, err := client.KeepAliveOnce(ctx, lease.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("keep-alive of a lease that has ended: %v", err)
	}
}

// The client's views of a store: with a prefix, cached under leases, ordered,
// and mirrored.
func TestClientPackages(t *testing.T) {
	t.Parallel()
	client := startMeshbridge(t).client(t)
	ctx := soon(t)

	kv, watcher := namespace.NewKV(client.KV, "tenant/"), namespace.NewWatcher(client.Watcher, "tenant/")
	if _, err := kv.Put(ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	if r, err := client.Get(ctx, "tenant/a"); err != nil || r.Count != 1 {
		t.Errorf("namespace: %v, %v", r, err)
	}
	if r := <-watcher.Watch(ctx, "a", clientv3.WithRev(2)); len(r.Events) != 1 || string(r.Events[0].Kv.Key) != "a" {
		t.Errorf("namespace: %v", r)
	}

	cached, closeCache, err := leasing.NewKV(client, "leasing/")
	if err != nil {
		t.Fatal(err)
	}
	defer closeCache()
	for range 3 {
		if r, err := cached.Get(ctx, "tenant/a"); err != nil || string(r.Kvs[0].Value) != "1" {
			t.Errorf("leasing: %v, %v", r, err)
		}
	}
	if _, err := client.Put(ctx, "other", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := cached.Put(ctx, "tenant/a", "2"); err != nil {
		t.Errorf("leasing: %v", err)
	}

	ordered := ordering.NewKV(client.KV, func(_ clientv3.Op, _ clientv3.OpResponse, previous int64) error {
		return fmt.Errorf("older than revision %d", previous)
	})
	for i := range 20 {
		if _, err := client.Put(ctx, "counter", strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		if r, err := ordered.Get(ctx, "counter", clientv3.WithSerializable()); err != nil || string(r.Kvs[0].Value) != strconv.Itoa(i) {
			t.Errorf("ordering: %v, %v", r, err)
		}
	}

	syncer := mirror.NewSyncer(client, "tenant/", 0)
	base, failures := syncer.SyncBase(ctx)
	for r := range base {
		if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "2" {
			t.Errorf("mirror: %v", r)
		}
	}
	if err := <-failures; err != nil {
		t.Errorf("mirror: %v", err)
	}
	updates := syncer.SyncUpdates(ctx)
	if _, err := client.Put(ctx, "tenant/b", "3"); err != nil {
		t.Fatal(err)
	}
	if r := <-updates; len(r.Events) != 1 || string(r.Events[0].Kv.Value) != "3" {
		t.Errorf("mirror: %v", r)
	}
}
