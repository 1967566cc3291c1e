// Package etcd compares meshbridge's store with a real etcd, built from the
// versions that this module's go.mod names as tools.
//
//	go test ./...        etcdctl and random requests against both servers
//	go run ./bench       speed, processor time and memory of both
package etcd
