// Package gateway serves a store over the etcd v3 API, as gRPC and as HTTP/JSON on one port.
//
// The paths where APISIX lives, /v3/kv/range and /v3/watch, are written by hand over shared encoded
// bytes; everything else goes through the generated JSON gateway.
package gateway
