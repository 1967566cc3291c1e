// Package gateway serves a store over the etcd v3 API, as gRPC and as HTTP/JSON on one port.
//
//	             ┌ HTTP/2 preface, ALPN h2 ─▶ gRPC: KV, Watch, Lease, Maintenance, Cluster, Auth, Lock, Election, health
//	listener ────┤                              ▲ in-memory connection
//	             └ HTTP/1.1 ─┬ everything else ─┘ (generated JSON gateway)
//	                         └ /v3/kv/range, /v3/watch: written by hand over the store
//
// The paths where APISIX lives, /v3/kv/range and /v3/watch, are written by hand over shared encoded
// bytes; everything else goes through the generated JSON gateway.
//
// A watch is a cursor in the store's log and nothing else: a stream drains all that is behind its
// cursors whenever the store moves, so a slow reader lags without queueing anything, and is
// cancelled once a compaction has overtaken it. Equal subscriptions share one encoding per revision.
//
// Users, roles and tokens are those of package auth: each request is checked for what its sender may do,
// which is one atomic load while authentication is off.
//
// What a client sees follows etcd 3.6, mistakes and their texts included. The fragment option of a watch is
// honoured over gRPC; over HTTP a frame has no size limit.
package gateway
