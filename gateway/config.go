package gateway

import (
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"meshbridge/gateway/auth"
	"meshbridge/store"
)

// Config configures New. Only Store is required.
type Config struct {
	// Store is what is served.
	Store *store.Store
	// TLS, when set, makes the listener accept TLS only; gRPC and HTTP are told apart by ALPN.
	TLS *tls.Config
	// Name is the member's name; empty means "default".
	Name string
	// ClientURLs are advertised in the member list, for example "http://127.0.0.1:2379".
	ClientURLs []string
	// ClusterID and MemberID appear in every response header; zero means fixed defaults.
	ClusterID, MemberID uint64
	// Hold, when set, is asked before a range or watch of [key, end) is served. A channel that is
	// not nil holds the request until it is closed, or for HoldTimeout; then it fails as
	// Unavailable. It is how a bridge avoids showing an empty world before the first one.
	Hold func(key, end []byte) <-chan struct{}
	// HoldTimeout bounds Hold; 0 means 30 s.
	HoldTimeout time.Duration
	// Admit, when set, decides about every write that a client asks for: puts, deletes, and those in
	// either branch of a transaction. One that is Denied fails the whole transaction. What the end of
	// a lease deletes is not asked about.
	Admit func(Write) Admission
	// Auth keeps users, roles and tokens. Nil means a new one without users, where a client can add
	// them and turn authentication on, as in etcd.
	Auth *auth.Authority
	// ProgressInterval is how often a watch that asked for progress_notify hears of a revision
	// when there was no event; 0 means 10 minutes, as in etcd.
	ProgressInterval time.Duration
	// CORSOrigins are the origins that browsers may use the JSON gateway from; none, or "*", is all.
	CORSOrigins []string
	// HostWhitelist are the host names that HTTP requests without TLS may be for, as a guard against
	// DNS rebinding; none, or "*", is all.
	HostWhitelist []string
	// QuotaBytes is the size of the store from which on clients cannot make it grow, until it was
	// compacted and the alarm that is raised was disarmed. 0 means etcd's 2 GiB, less than 0 no quota.
	QuotaBytes int64
	// Alarms are active from the start: those of the snapshot that Store was restored from.
	Alarms []*pb.AlarmMember
	// SnapshotDir is where a snapshot is made before it is sent. Empty means os.TempDir.
	SnapshotDir string
	// Limits bounds what clients can make the server spend.
	Limits Limits
	// Logger receives the gateway's logs; nil discards them.
	Logger *slog.Logger
	// Registerer receives the gateway's metrics; nil means none.
	Registerer prometheus.Registerer
	// Gatherer is served at /metrics; nil means 404.
	Gatherer prometheus.Gatherer
}

// Write is a put of Key, or a delete of [Key, End). End is etcd's range_end: empty is Key alone, and
// "\x00" everything from Key on.
type Write struct {
	Delete   bool
	Key, End []byte
}

// Admission is the decision about a Write.
type Admission int

// Admissions.
const (
	// Admitted writes are executed.
	Admitted Admission = iota
	// Ignored writes are answered as successful and change nothing.
	Ignored
	// Denied writes fail with PermissionDenied.
	Denied
)

// Defaults of Config.
const (
	defaultName             = "default"
	defaultClusterID        = 0x6d65736862726467
	defaultMemberID         = 0x6d65736862726401
	defaultHoldTimeout      = 30 * time.Second
	defaultProgressInterval = 10 * time.Minute
)

// withDefaults returns c with every zero field that has a default filled in.
func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = defaultName
	}
	if c.ClusterID == 0 {
		c.ClusterID = defaultClusterID
	}
	if c.MemberID == 0 {
		c.MemberID = defaultMemberID
	}
	if c.HoldTimeout == 0 {
		c.HoldTimeout = defaultHoldTimeout
	}
	if c.QuotaBytes == 0 {
		c.QuotaBytes = DefaultQuotaBytes
	}
	if c.ProgressInterval == 0 {
		c.ProgressInterval = defaultProgressInterval
	}
	c.Limits = c.Limits.withDefaults()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
