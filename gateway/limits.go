package gateway

import (
	"cmp"
	"errors"
	"math"
	"syscall"
	"time"
)

// Limits bounds what clients can make the server spend. Zero fields mean the defaults, which are
// etcd's where etcd has the limit.
//
// What one connection can hold is bounded. Over HTTP it is HeaderBytes while a request arrives, then its
// body, which is at most the base64 of RequestBytes and a margin, about 2.9 MB by default; responses are
// written in pieces. Over gRPC it is HeaderBytes and one message for each stream. Idle ones were measured
// to cost 6 KB when the client has said nothing yet, 20 KB between requests, 12 KB with a watch over HTTP,
// 43 KB with one over a WebSocket, and 47 KB with one over gRPC.
type Limits struct {
	// RequestBytes is the largest serialized write; 0 means 1.5 MiB. Any gRPC message may be 512 KiB
	// larger.
	RequestBytes int
	// TxnOps is the largest number of operations of a branch of a transaction, with everything nested
	// in it; 0 means 128.
	TxnOps int
	// Streams is the number of streams that one gRPC connection may have open; 0 means no limit.
	Streams uint32
	// Connections is the number of connections of one listener. A client over the limit is cut off
	// at once. 0 means the process's limit of file descriptors less 150, as in etcd.
	Connections int
	// WatchesPerStream and Watches bound the watches of one stream and of all; 0 means 131072 and
	// 1048576. A watch over a limit is cancelled as it is created, and the stream goes on.
	WatchesPerStream, Watches int
	// HeaderBytes bounds the header of a request; 0 means 64 KiB.
	HeaderBytes int

	// KeepaliveMinTime is the least time between pings of a gRPC client; one that pings more often is
	// cut off. 0 means 5 s.
	KeepaliveMinTime time.Duration
	// KeepaliveInterval is how often the server pings an idle gRPC client, and KeepaliveTimeout how
	// long it then waits. 0 means 2 h and 20 s.
	KeepaliveInterval, KeepaliveTimeout time.Duration

	// HeaderTimeout is for everything from accept to the end of an HTTP header or of the handshakes
	// of TLS and HTTP/2, BodyTimeout for the body of a request, and IdleTimeout for the next request
	// of a kept-alive connection. 0 means 10 s, 20 s and 5 min; APISIX keeps connections for one.
	HeaderTimeout, BodyTimeout, IdleTimeout time.Duration
	// StallTimeout is how long a client of HTTP may leave 256 KiB of a response unread; 0 means
	// 2 min. A client of gRPC may leave a stream unread for as long as it answers pings.
	StallTimeout time.Duration
}

// DefaultLimits returns the limits that zero fields stand for.
func DefaultLimits() Limits { return Limits{}.withDefaults() }

// Defaults of Limits.
const (
	defaultRequestBytes     = 3 << 19
	defaultTxnOps           = 128
	defaultWatchesPerStream = 1 << 17
	defaultWatches          = 1 << 20
	defaultHeaderBytes      = 64 << 10

	defaultKeepaliveMinTime  = 5 * time.Second
	defaultKeepaliveInterval = 2 * time.Hour
	defaultKeepaliveTimeout  = 20 * time.Second

	defaultHeaderTimeout = 10 * time.Second
	defaultBodyTimeout   = 20 * time.Second
	defaultIdleTimeout   = 5 * time.Minute
	defaultStallTimeout  = 2 * time.Minute

	// messageMargin is what a gRPC message may be larger than a write.
	messageMargin = 512 << 10
	// reservedFiles are the descriptors that are not for connections of clients.
	reservedFiles = 150
)

// validate fails if a limit is negative.
func (l Limits) validate() error {
	for _, n := range [...]int{l.RequestBytes, l.TxnOps, l.Connections, l.WatchesPerStream, l.Watches, l.HeaderBytes} {
		if n < 0 {
			return errors.New("gateway: a number in Config.Limits is negative")
		}
	}
	for _, d := range [...]time.Duration{
		l.KeepaliveMinTime, l.KeepaliveInterval, l.KeepaliveTimeout,
		l.HeaderTimeout, l.BodyTimeout, l.IdleTimeout, l.StallTimeout,
	} {
		if d < 0 {
			return errors.New("gateway: a time in Config.Limits is negative")
		}
	}
	return nil
}

// withDefaults returns l with every zero field filled in.
func (l Limits) withDefaults() Limits {
	return Limits{
		RequestBytes:      cmp.Or(l.RequestBytes, defaultRequestBytes),
		TxnOps:            cmp.Or(l.TxnOps, defaultTxnOps),
		Streams:           cmp.Or(l.Streams, math.MaxUint32),
		Connections:       cmp.Or(l.Connections, availableFiles()),
		WatchesPerStream:  cmp.Or(l.WatchesPerStream, defaultWatchesPerStream),
		Watches:           cmp.Or(l.Watches, defaultWatches),
		HeaderBytes:       cmp.Or(l.HeaderBytes, defaultHeaderBytes),
		KeepaliveMinTime:  cmp.Or(l.KeepaliveMinTime, defaultKeepaliveMinTime),
		KeepaliveInterval: cmp.Or(l.KeepaliveInterval, defaultKeepaliveInterval),
		KeepaliveTimeout:  cmp.Or(l.KeepaliveTimeout, defaultKeepaliveTimeout),
		HeaderTimeout:     cmp.Or(l.HeaderTimeout, defaultHeaderTimeout),
		BodyTimeout:       cmp.Or(l.BodyTimeout, defaultBodyTimeout),
		IdleTimeout:       cmp.Or(l.IdleTimeout, defaultIdleTimeout),
		StallTimeout:      cmp.Or(l.StallTimeout, defaultStallTimeout),
	}
}

// messageBytes is the largest gRPC message that is received.
func (l Limits) messageBytes() int { return l.RequestBytes + messageMargin }

// bodyBytes is the largest HTTP body. It lets every message of messageBytes through in base64, so that
// the limits on messages and writes decide and not this one.
func (l Limits) bodyBytes() int64 { return int64(l.messageBytes())/3*4 + 64<<10 }

// availableFiles is how many connections the process can have. One that has next to no descriptors
// still serves a few.
func availableFiles() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return math.MaxInt
	}
	if files.Cur > math.MaxInt32 {
		return math.MaxInt
	}
	return max(int(files.Cur)-reservedFiles, reservedFiles)
}
