// Package handover passes the listening sockets of a bridge, and what its clients know of it, to the next
// one on the same host, so that no connection is refused and no watcher has to read everything again.
//
// APISIX bans an etcd endpoint after a single refused connection, so an upgrade must not close the port
// for a moment. The successor connects to the socket of its predecessor, both run for a while, and the
// order is
//
//	successor                      predecessor
//	Claim ──────── hello ────────▶ checks who it is; at most one at a time
//	      ◀────── sockets ──────── serves on
//	(connects to istiod, receives its world; accepts nothing)
//	Freeze ─────── freeze ───────▶ Donor.Freeze: commits nothing more
//	      ◀─────── state ───────── revisions, history, leases, numbers
//	(commits the difference)
//	Serve ──────── serving ──────▶ Donor.Leave, from which there is no way back
//	      ◀────── farewell ─────── stops accepting, ends its streams, drains, exits
//	(accepts)
//
// Until farewell, the end of the connection means that the predecessor goes on as if nothing had been. A
// predecessor that dies leaves the sockets open in the successor, which then goes on without its state.
package handover
