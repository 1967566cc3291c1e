// Package store is a revisioned key-value store in memory, with etcd's semantics: every change makes
// a new revision, old revisions can be read until they are compacted, and a watch delivers every
// change from any revision that is not compacted.
//
// One writer at a time appends immutable Blocks to a log and publishes a snapshot; readers and
// watchers never take the writer's lock, so a slow watcher is felt by nobody.
//
// The package knows neither APISIX nor gRPC.
package store
