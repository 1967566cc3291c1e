// Package etcd compares meshbridge's store with a real etcd. The module in v36
// names the version whose behaviour is the target; this module's own go.mod
// names the version that speed is measured against.
//
//	go test ./...        clients and random requests against both servers
//	go test -run Random . -seed 0 -ops 20000
//	                     other random requests, and more of them
//	go run ./bench       speed, processor time and memory of both
package etcd
