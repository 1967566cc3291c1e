package translate

import (
	"net/netip"

	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// Options are fixed for the life of a State. The zero value of every field but Profile is usable.
type Options struct {
	// Profile is the set of capabilities of the APISIX that will serve the objects.
	Profile Profile
	// APISIXVersion is the version of that APISIX; the zero value is 3.18.
	APISIXVersion apisix.Version
	// NodeID is the xDS node id; it becomes a label on every object.
	NodeID string
	// Metadata is that of the node, of which peers are told a part.
	Metadata *structpb.Struct
	// InstanceIPs are the addresses of this workload, used as the nodes of inbound clusters.
	InstanceIPs []netip.Addr
	// Locality is where this workload is; the zero value is unknown.
	Locality Locality
	// OutboundPort and InboundPort are APISIX's listening ports in the direct profile, to which
	// iptables redirects outbound and inbound connections. Zero means 9080 and 9081.
	OutboundPort, InboundPort int
	// OverlayPort is the port of capture's overlay in the mesh profile. Zero means 15011.
	OverlayPort int
	// Internal is where the bridge answers APISIX on the same host; the zero value is nowhere.
	Internal netip.AddrPort
	// NoAccessLogs tells that whoever is told of requests and connections writes no access logs: those that
	// APISIX does not write are reported.
	NoAccessLogs bool
	// BridgeAccessLogs leaves all access logs of requests to whoever is told of them, in Envoy's text, instead
	// of one to a file to APISIX. It takes Internal.
	BridgeAccessLogs bool
	// AllowUnenforced lists the diagnostic codes of access restrictions that are left
	// unenforced instead of answered with 403.
	AllowUnenforced []Code
}

// Inputs are what a translation depends on besides the resources: results of I/O and timers that
// live outside this package. Equal Inputs and resources give equal bytes.
type Inputs struct {
	// DNS holds the addresses that the names of HostNames resolved to, which may be none. A name
	// that is missing is emitted as a domain node, which APISIX resolves itself. A map must not be
	// modified once it has been passed: another map tells that something may have changed.
	DNS map[string][]netip.Addr
	// DNSErrors tells of names why they could not be resolved when that was last tried. DNS may
	// hold an older answer. The rule about modifying it is that of DNS.
	DNSErrors map[string]string
	// Ramps holds, by cluster and endpoint, the part of its weight that an endpoint has in slow
	// start, as SlowStart.Factor gives it. An endpoint that is missing from its cluster's map is
	// new. A cluster that is missing has no new endpoints. Neither kind of map must be modified.
	Ramps map[string]map[string]float64
	// Files holds the secrets of State.FileSecrets, by name, as FileSecret.Read returns them, and FileErrors
	// why others could not be read. The rule about modifying them is that of DNS.
	Files      map[string]*tlspb.Secret
	FileErrors map[string]string
	// Allocations gives out APISIX's stream ports and the addresses of the overlay, in profiles with
	// capture. nil has none to give.
	Allocations Allocations
	// Extensions are what users add; nil is nothing.
	Extensions Extensions
}

// Input is one step: a snapshot, and what is new in it.
type Input struct {
	Snapshot *xds.Snapshot
	// Changed is what differs from the Snapshot of the previous step. All set to true means that
	// everything may differ, for example on the first step.
	Changed []xds.Key
	All     bool
	Inputs  Inputs
}

// Result is what a step changed.
type Result struct {
	// Put holds the objects that are new or have other bytes, sorted by Key.
	Put []apisix.Object
	// Delete holds the Keys of objects that are gone, sorted. Nothing refers to them any more.
	Delete []string
	// DiagnosticsChanged tells whether State.Diagnostics differs from before the step.
	DiagnosticsChanged bool
	// AuthenticationsChanged tells that State.Authentications may differ from before the step.
	AuthenticationsChanged bool
	// SlowStarts are those of the clusters that the step compiled, sorted by cluster. A cluster
	// that lost its slow start, or is gone, is listed without a Window.
	SlowStarts []SlowStart
	// Capture is what changed for the process in front of APISIX; empty in profiles without one.
	Capture CaptureChange
}
