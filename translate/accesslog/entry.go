package accesslog

import (
	"net/netip"
	"time"
)

// Entry is a request that is over, or a connection without HTTP. What is not known has its zero value. It is
// immutable once it has been handed to logs.
type Entry struct {
	// Start is when the request, or connection, began; Duration lasts until its end.
	Start    time.Time
	Duration time.Duration
	// Chain is the key of the filter chain, and Listener that one's name.
	Chain, Listener string
	// Route is the name of the route in Envoy (ROUTE_NAME), and Cluster the upstream's (UPSTREAM_CLUSTER_RAW).
	Route, Cluster string
	// ClusterStat is the cluster's alt_stat_name, by which Envoy's texts call it (UPSTREAM_CLUSTER): Istio's end
	// in a semicolon. Empty is Cluster.
	ClusterStat string
	// Source is the client, Destination the address that it connected to: the original one where connections
	// are redirected. Direct is whom the connection came from, if a PROXY protocol header named another Source.
	Source, Destination, Direct netip.AddrPort
	// Upstream is the endpoint of the last attempt, Local our address of that connection.
	Upstream, Local netip.AddrPort
	// ServerName is the TLS server name that the client asked for (REQUESTED_SERVER_NAME).
	ServerName string
	// MutualTLS tells that the client has shown a certificate, Principal is that one's SPIFFE ID, and
	// OwnPrincipal the one that it was shown.
	MutualTLS               bool
	Principal, OwnPrincipal string
	// Connection numbers connections.
	Connection uint64
	// Received are the bytes that the client has sent, and Sent what it was sent: of a request, of the body only
	// in HTTP.
	Received, Sent int64
	// UpstreamReceived and UpstreamSent are those of the connection to the endpoint, as its peer would call
	// them the other way round.
	UpstreamReceived, UpstreamSent int64
	// Flags are Envoy's response flags, such as "UF,URX"; empty where nothing went wrong.
	Flags string
	// Detail says why a connection was refused or an endpoint not reached, in words.
	Detail string
	// HTTP is nil for connections.
	HTTP *HTTP
}

// HTTP is what a request has that a connection has not.
type HTTP struct {
	// Protocol is "HTTP/1.1", "HTTP/2" or the like; Scheme is "http" or "https".
	Protocol, Scheme string
	// Method, Authority and Path are as the client sent them, the latter with the query.
	Method, Authority, Path string
	// Status is 0 where the client did not wait for an answer. GRPCStatus is empty where there was none.
	Status     int
	GRPCStatus string
	// Received and Sent are the bytes with the headers.
	Received, Sent int64
	// Attempts is how many endpoints were tried.
	Attempts int
	// Connected, Answered and Ended are how long it took, from the beginning of the attempt, until the
	// endpoint was connected to, had sent the headers of its answer, and all of it; negative where unknown.
	Connected, Answered, Ended time.Duration
	// RequestHeaders and ResponseHeaders have what the logs of the chain asked for, by names in lower case.
	RequestHeaders, ResponseHeaders map[string]string
}
