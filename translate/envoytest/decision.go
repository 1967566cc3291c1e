package envoytest

import "time"

// Outcome is what becomes of a request.
type Outcome string

// Outcomes.
const (
	// Forward: the request goes to Decision.Cluster.
	Forward Outcome = "forward"
	// Redirect: the answer is Decision.Status with Decision.Location.
	Redirect Outcome = "redirect"
	// Direct: the route answers with Decision.Status and Decision.Body.
	Direct Outcome = "direct response"
	// Preflight: the CORS filter answers a preflight request.
	Preflight Outcome = "preflight"
	// Fault: the fault filter aborts.
	Fault Outcome = "fault"
	// Denied: an RBAC filter refuses.
	Denied Outcome = "denied"
	// NotFound: there is no route, or no virtual host, for the request.
	NotFound Outcome = "not found"
	// NoCluster: the route's cluster does not exist.
	NoCluster Outcome = "no cluster"
	// Rejected: the connection manager refuses the request before it looks for a route.
	Rejected Outcome = "rejected"
	// Closed: no filter chain takes the connection, or its handshake fails.
	Closed Outcome = "closed"
	// TCP: the chain ends in a TCP proxy to Decision.Cluster.
	TCP Outcome = "tcp"
	// Unknown: something that is not evaluated decides; see Decision.Notes.
	Unknown Outcome = "unknown"
)

// Decision is what Envoy does with a request.
type Decision struct {
	// Listener, FilterChain, RouteConfig, VirtualHost and Route are the names of what took the
	// request, as far as it got; RouteIndex is the route's place in its virtual host, -1 without.
	Listener, FilterChain, RouteConfig, VirtualHost, Route string
	RouteIndex                                             int

	Outcome Outcome
	// Status is that of the answer, where Envoy gives it itself.
	Status         int
	Location, Body string
	// GRPCStatus is set where the answer is a gRPC error with HTTP status 200.
	GRPCStatus string
	// Delay is an injected delay.
	Delay time.Duration

	// Cluster is where the request goes; Weights are the clusters that it was drawn from.
	Cluster string
	Weights []Weight
	// Host, Path and Headers are what the upstream receives. Path has the query.
	Host, Path string
	Headers    []Header
	// HostOfEndpoint tells that Host is replaced by the endpoint's own name.
	HostOfEndpoint bool
	// Response has the headers of the answer: those that the configuration adds to Envoy's own, or
	// makes of the upstream's.
	Response []Header

	// Timeout is for the whole response and IdleTimeout for silence; zero is none.
	Timeout, IdleTimeout time.Duration
	Retry                Retry
	Mirrors              []string
	// Hash has the policies of the route as "header x-user", "cookie sid", "source address",
	// "query parameter q", each followed by "terminal" where it is.
	Hash []string
	// SourceAddress is the client's address as filters and policies see it.
	SourceAddress string

	// Notes name what was not modelled.
	Notes []string
}

// Weight is a cluster's share.
type Weight struct {
	Cluster string
	Weight  uint32
}

// Retry is the retry policy of a forwarded request.
type Retry struct {
	On            string
	Count         uint32
	PerTryTimeout time.Duration
}

func (d *Decision) note(text string) { d.Notes = append(d.Notes, text) }

// answer makes the decision one that Envoy answers itself.
func (d *Decision) answer(outcome Outcome, status int) {
	d.Outcome, d.Status = outcome, status
}
