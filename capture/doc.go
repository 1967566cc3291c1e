// Package capture is the process in front of APISIX that knows where a connection was going: it has
// the semantics of Envoy's listeners, and hands connections on with a PROXY protocol header.
//
//	client ──▶ listener ──▶ inspection ──▶ filter chain ──▶ APISIX (HTTP, stream) or the original destination
//
// A connection that iptables redirected belongs to the listener of its original destination; others
// to the listener that accepted them. The first bytes tell TLS from plain text and HTTP from TCP, as
// far as the listener asks. The filter chain that matches says whether TLS is terminated here, which
// policies decide about the connection and where it goes. The bytes pass unchanged otherwise.
//
// Tables come from package translate and may be replaced at any time: connections keep what they
// have begun with. Each accepted connection has a goroutine until it is known where it goes; plain
// connections are then relayed by an event loop per core, where an idle one has neither a goroutine
// nor a buffer.
package capture
