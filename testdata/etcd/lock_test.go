package etcd

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/status"
)

// contest calls the lock and election services of one server and keeps a
// record of what happens, which is compared with that of the other.
type contest struct {
	*testing.T
	client   *clientv3.Client
	lock     v3lockpb.LockClient
	election v3electionpb.ElectionClient
	record   []string
}

func newContest(t *testing.T, s server) *contest {
	client := s.client(t)
	conn := client.ActiveConnection()
	return &contest{t, client, v3lockpb.NewLockClient(conn), v3electionpb.NewElectionClient(conn), nil}
}

// note records an event, or the error in its place.
func (c *contest) note(err error, format string, args ...any) {
	if err != nil {
		format, args = "%s: %s", []any{status.Code(err), status.Convert(err).Message()}
	}
	c.record = append(c.record, fmt.Sprintf(format, args...))
}

func (c *contest) grant(id int64) {
	c.Helper()
	if _, err := pb.NewLeaseClient(c.client.ActiveConnection()).LeaseGrant(c.Context(), &pb.LeaseGrantRequest{ID: id, TTL: 1000}); err != nil {
		c.Fatal(err)
	}
}

// keys records the keys of a prefix in the order of their creation.
func (c *contest) keys(prefix string) {
	c.Helper()
	r, err := c.client.Get(c.Context(), prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	if err != nil {
		c.Fatal(err)
	}
	var keys []string
	for _, kv := range r.Kvs {
		keys = append(keys, fmt.Sprintf("%s=%s lease %x", kv.Key, kv.Value, kv.Lease))
	}
	c.note(nil, "keys %q at %d", keys, r.Header.Revision)
}

// during starts call and returns after it has changed the key; the result of
// call comes from the channel.
func during[R any](c *contest, key string, call func() (R, error)) <-chan func() (R, error) {
	c.Helper()
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	watch := c.client.Watch(ctx, key, clientv3.WithCreatedNotify())
	<-watch
	result := make(chan func() (R, error), 1)
	go func() {
		r, err := call()
		result <- func() (R, error) { return r, err }
	}()
	<-watch
	return result
}

func TestLocksAreThoseOfEtcd(t *testing.T) {
	t.Parallel()
	etcd, meshbridge := startBoth(t)
	want, got := takeLocks(newContest(t, etcd)), takeLocks(newContest(t, meshbridge))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-etcd +meshbridge):\n%s", diff)
	}
}

func takeLocks(c *contest) []string {
	ctx := c.Context()
	for id := range int64(4) {
		c.grant(16 + id)
	}
	lock := func(ctx context.Context, lease int64) (*v3lockpb.LockResponse, error) {
		return c.lock.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: lease})
	}
	first, err := lock(ctx, 16)
	c.note(err, "free: %s at %d", first.GetKey(), first.GetHeader().GetRevision())
	first, err = lock(ctx, 16)
	c.note(err, "own: %s at %d", first.GetKey(), first.GetHeader().GetRevision())
	_, err = lock(ctx, 99)
	c.note(err, "no such lease")

	second := during(c, "l/11", func() (*v3lockpb.LockResponse, error) { return lock(ctx, 17) })
	third := during(c, "l/12", func() (*v3lockpb.LockResponse, error) { return lock(ctx, 18) })
	c.keys("l/")

	// Who gives up waiting leaves nothing behind.
	giveUp, cancel := context.WithCancel(ctx)
	fourth := during(c, "l/13", func() (*v3lockpb.LockResponse, error) { return lock(giveUp, 19) })
	gone := c.client.Watch(ctx, "l/13", clientv3.WithCreatedNotify())
	<-gone
	cancel()
	_, err = (<-fourth)()
	c.note(err, "gave up")
	<-gone
	c.keys("l/")

	// The next one gets the lock when it is released, or when the lease ends.
	unlocked, err := c.lock.Unlock(ctx, &v3lockpb.UnlockRequest{Key: first.GetKey()})
	c.note(err, "unlocked at %d", unlocked.GetHeader().GetRevision())
	r, err := (<-second)()
	c.note(err, "waited: %s at %d", r.GetKey(), r.GetHeader().GetRevision())
	if _, err := c.client.Revoke(ctx, 17); err != nil {
		c.Fatal(err)
	}
	r, err = (<-third)()
	c.note(err, "waited for a lease: %s at %d", r.GetKey(), r.GetHeader().GetRevision())

	// Who loses the lease while waiting has no lock.
	fifth := during(c, "l/13", func() (*v3lockpb.LockResponse, error) { return lock(ctx, 19) })
	if _, err := c.client.Revoke(ctx, 19); err != nil {
		c.Fatal(err)
	}
	_, _ = c.lock.Unlock(ctx, &v3lockpb.UnlockRequest{Key: r.GetKey()})
	_, err = (<-fifth)()
	c.note(err, "lost the lease")

	// Without a lease there is a new one, of a minute.
	r, err = c.lock.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("m")})
	if err != nil {
		c.Fatal(err)
	}
	kv, err := c.client.Get(ctx, string(r.GetKey()))
	if err != nil {
		c.Fatal(err)
	}
	ttl, err := c.client.TimeToLive(ctx, clientv3.LeaseID(kv.Kvs[0].Lease))
	c.note(err, "a lease of %d, key %t", ttl.GrantedTTL, string(r.GetKey()) == fmt.Sprintf("m/%x", kv.Kvs[0].Lease))

	// Etcd's client library waits in the same line.
	session, err := concurrency.NewSession(c.client)
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	mutex := concurrency.NewMutex(session, "m")
	c.note(mutex.TryLock(ctx), "locked twice")
	_, _ = c.lock.Unlock(ctx, &v3lockpb.UnlockRequest{Key: r.GetKey()})
	c.note(mutex.TryLock(ctx), "locked by the library")
	_, err = c.lock.Unlock(ctx, &v3lockpb.UnlockRequest{})
	c.note(err, "no key")
	return c.record
}

func TestElectionsAreThoseOfEtcd(t *testing.T) {
	t.Parallel()
	etcd, meshbridge := startBoth(t)
	want, got := holdElections(newContest(t, etcd)), holdElections(newContest(t, meshbridge))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-etcd +meshbridge):\n%s", diff)
	}
}

func holdElections(c *contest) []string {
	ctx := c.Context()
	for id := range int64(3) {
		c.grant(16 + id)
	}
	name := []byte("e")
	campaign := func(ctx context.Context, lease int64, value string) (*v3electionpb.CampaignResponse, error) {
		return c.election.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: lease, Value: []byte(value)})
	}
	noteCampaign := func(r *v3electionpb.CampaignResponse, err error) *v3electionpb.LeaderKey {
		l := r.GetLeader()
		c.note(err, "leads: %s %s rev %d lease %x at %d", l.GetName(), l.GetKey(), l.GetRev(), l.GetLease(), r.GetHeader().GetRevision())
		return l
	}
	noteLeader := func(r *v3electionpb.LeaderResponse, err error) {
		kv := r.GetKv()
		c.note(err, "leader %s=%s created %d at %d", kv.GetKey(), kv.GetValue(), kv.GetCreateRevision(), r.GetHeader().GetRevision())
	}
	noteLeader(c.election.Leader(ctx, &v3electionpb.LeaderRequest{Name: name}))
	_, err := campaign(ctx, 99, "x")
	c.note(err, "no such lease")

	observer, err := c.election.Observe(ctx, &v3electionpb.LeaderRequest{Name: name})
	if err != nil {
		c.Fatal(err)
	}
	first := noteCampaign(campaign(ctx, 16, "a"))
	noteLeader(observer.Recv())
	noteLeader(c.election.Leader(ctx, &v3electionpb.LeaderRequest{Name: name}))
	noteCampaign(campaign(ctx, 16, "a"))
	noteCampaign(campaign(ctx, 16, "b"))
	noteLeader(observer.Recv())

	second := during(c, "e/11", func() (*v3electionpb.CampaignResponse, error) { return campaign(ctx, 17, "c") })
	proclaimed, err := c.election.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: first, Value: []byte("d")})
	c.note(err, "proclaimed at %d", proclaimed.GetHeader().GetRevision())
	noteLeader(observer.Recv())
	giveUp, cancel := context.WithCancel(ctx)
	third := during(c, "e/12", func() (*v3electionpb.CampaignResponse, error) { return campaign(giveUp, 18, "e") })
	gone := c.client.Watch(ctx, "e/12", clientv3.WithCreatedNotify())
	<-gone
	cancel()
	_, err = (<-third)()
	c.note(err, "gave up")
	<-gone
	c.keys("e/")

	resigned, err := c.election.Resign(ctx, &v3electionpb.ResignRequest{Leader: first})
	c.note(err, "resigned at %d", resigned.GetHeader().GetRevision())
	leader := noteCampaign((<-second)())
	noteLeader(observer.Recv())
	_, err = c.election.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: first, Value: []byte("f")})
	c.note(err, "proclaimed after resigning")
	resigned, err = c.election.Resign(ctx, &v3electionpb.ResignRequest{Leader: first})
	c.note(err, "resigned again at %d", resigned.GetHeader().GetRevision())

	// With the lease goes the leader.
	if _, err := c.client.Revoke(ctx, clientv3.LeaseID(leader.GetLease())); err != nil {
		c.Fatal(err)
	}
	noteLeader(c.election.Leader(ctx, &v3electionpb.LeaderRequest{Name: name}))
	session, err := concurrency.NewSession(c.client, concurrency.WithLease(18))
	if err != nil {
		c.Fatal(err)
	}
	c.note(concurrency.NewElection(session, "e").Campaign(ctx, "g"), "elected by the library")
	session.Orphan()
	noteLeader(observer.Recv())
	for _, request := range []*v3electionpb.ResignRequest{{}, {Leader: &v3electionpb.LeaderKey{}}} {
		_, err = c.election.Resign(ctx, request)
		c.note(err, "resigned as nobody")
	}
	_, err = c.election.Proclaim(ctx, &v3electionpb.ProclaimRequest{})
	c.note(err, "proclaimed by nobody")
	return c.record
}
