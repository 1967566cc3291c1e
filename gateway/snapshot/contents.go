package snapshot

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"meshbridge/gateway/auth"
	"meshbridge/store"
)

// Contents is what a snapshot holds.
type Contents struct {
	Store  store.State
	Auth   auth.State
	Alarms []*pb.AlarmMember
	// Members are those of the cluster that the snapshot is of.
	Members []*pb.Member
	// ClusterVersion and StorageVersion are those of the server, for example "3.6.0". Snapshots of etcd
	// before 3.6 have no storage version.
	ClusterVersion, StorageVersion string
	// Term is that of etcd's log.
	Term uint64
}

// Buckets. A server that starts from a snapshot expects every one of them.
const (
	keyBucket            = "key"
	leaseBucket          = "lease"
	authBucket           = "auth"
	authUsersBucket      = "authUsers"
	authRolesBucket      = "authRoles"
	alarmBucket          = "alarm"
	metaBucket           = "meta"
	clusterBucket        = "cluster"
	membersBucket        = "members"
	membersRemovedBucket = "members_removed"
)

// Keys of the buckets auth, meta and cluster.
const (
	authEnabledKey      = "authEnabled"
	authRevisionKey     = "authRevision"
	consistentIndexKey  = "consistent_index"
	termKey             = "term"
	confStateKey        = "confState"
	storageVersionKey   = "storageVersion"
	finishedCompactKey  = "finishedCompactRev"
	scheduledCompactKey = "scheduledCompactRev"
	clusterVersionKey   = "clusterVersion"
)

// Fields of a lease's value, which has no published proto.
const (
	leaseIDField  = 1
	leaseTTLField = 2
)

// revisionBytes is the size of a key of the bucket key; a deletion has one byte more.
const revisionBytes = 17

// sectorBytes is what the size of a database is a multiple of. It tells a file with a checksum from one
// without.
const sectorBytes = 512

// member is a member's value in its bucket.
type member struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

// confState is the value of confStateKey.
type confState struct {
	Voters    []uint64 `json:"voters"`
	AutoLeave bool     `json:"auto_leave"`
}
