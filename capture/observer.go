package capture

import (
	"net/netip"
	"sync/atomic"
	"time"

	"meshbridge/translate"
)

// Observer is told of connections that carry no HTTP: APISIX tells of requests. Its methods are safe for
// concurrent use, and return soon: event loops call them.
type Observer interface {
	// Opened is told of a connection whose filter chain is known.
	Opened(*Connected)
	// Closed is told when it has ended, or was refused.
	Closed(*Connected)
}

// Connected is a connection that carries no HTTP, or one that no filter chain takes.
type Connected struct {
	// Chain is the key of the filter chain, empty where none matches; Listener is the listener's name.
	Chain, Listener string
	Direction       translate.Direction
	// Cluster is the one that was chosen; empty where none was.
	Cluster string
	// Source is the client and Direct whom the connection came from, if a PROXY protocol header named another
	// client. Destination is the original one.
	Source, Direct, Destination netip.AddrPort
	// Upstream is where capture has connected to, and Local from where; invalid where APISIX chooses the
	// endpoint.
	Upstream, Local netip.AddrPort
	// ServerName is the TLS server name, empty without one.
	ServerName string
	// MutualTLS tells that the client has shown a certificate, and Principal is its SPIFFE ID.
	MutualTLS bool
	Principal string
	// Started is when the connection was accepted. Ended, Outcome, Reason and Detail are set when it has
	// ended: Outcome is "closed", "reset", "idle", "refused" or "stopped", Reason that of
	// meshbridge_capture_refused_total, and Detail says more in words.
	Started, Ended          time.Time
	Outcome, Reason, Detail string
	// Sent are bytes to the client, Received those from it. They grow while the connection is open.
	Sent, Received atomic.Int64
}
