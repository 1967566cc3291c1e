// Package snapshot writes and reads etcd's snapshot files, so that what `etcdctl snapshot save` gets from
// this server is restored by `etcdutl snapshot restore`, and the other way round.
//
// A snapshot file is a bbolt database, usually with the SHA-256 of its bytes behind it:
//
//	bucket                     key                        value
//	key                        revision "_" position ["t"]  mvccpb.KeyValue; a "t" marks a deletion
//	lease                      id                         {1: id, 2: seconds}
//	auth                       authEnabled, authRevision  a byte, 8 bytes
//	authUsers, authRoles       name                       authpb.User, authpb.Role
//	alarm                      etcdserverpb.AlarmMember   nothing
//	meta                       consistent_index, term     8 bytes; they belong to etcd's log
//	                           confState                  JSON; likewise
//	                           storageVersion             text, since 3.6
//	                           finishedCompactRev         like the keys of the bucket key
//	                           scheduledCompactRev
//	cluster                    clusterVersion             text
//	members, members_removed   id in hexadecimal          JSON
//
// Integers in keys and in values of fixed size are big endian. The layout is etcd's and is documented by
// its code only (server/storage/schema); it has been stable since 3.0 but for additions.
package snapshot
