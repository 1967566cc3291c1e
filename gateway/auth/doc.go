// Package auth decides who may do what: users with passwords, roles with permissions on ranges of keys,
// and tokens, all with the rules of etcd 3.6.
//
//	password ─▶ Authenticate ─▶ token ─▶ Identify ─▶ Identity ─▶ View.Read, Write, Root
//	                                                               ▲
//	UserAdd, RoleGrant, Enable, … ─▶ a new View, published whole ──┘
//
// Users, roles and what follows from them are one immutable View. A change makes the next one, so that a
// check never waits and never sees half a change; while authentication is off, a check is one atomic
// load. Pin keeps the View from being replaced between the check of a write and its execution.
//
// Hashing a password takes tens of milliseconds of CPU on purpose. It happens outside all locks and in few
// goroutines at a time, so that a crowd of logins slows down logins only.
package auth
