// Package dns resolves the host names of STRICT_DNS clusters, which APISIX cannot do as Envoy does:
// every address of such a name is an endpoint of its own. A Resolver keeps the answers of the names
// it is told to resolve up to date.
//
//	names ──▶ Resolver ──▶ hosts file, then DNS: UDP, TCP for what does not fit
//	              │
//	              └──▶ Answers (immutable), and a signal where they differ from before
//
// Answers carry the time to live of their records, which package net does not tell; that is why
// messages are sent and read here. As in Envoy, a name that does not exist is an answer without
// addresses, whereas a failure keeps what was known.
package dns
