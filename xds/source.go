package xds

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Source delivers resources: the ADS client (New) or the file source (NewFileSource).
type Source interface {
	// Run delivers an Update for every change until ctx ends, from one goroutine and in order,
	// and returns after its goroutines have ended. It returns nil when ctx ended.
	//
	// deliver must not block: a consumer that is busy merges Updates (see Update.Merge).
	Run(ctx context.Context, deliver func(Update)) error
}

// Update is the state of the world and what is new in it. It also keeps the decoded forms of what is
// new, so that they are decoded once: drop it when done, and keep the Snapshot. Its slices are shared
// with other Updates and must not be modified.
type Update struct {
	// Snapshot is everything that is known now.
	Snapshot *Snapshot
	// Changed lists what differs from the previous Update's Snapshot, added, changed and removed,
	// sorted and without duplicates. A response that changes nothing gives no Update, except when
	// it answers something that was Pending.
	Changed []Key
	// Pending lists what has been asked for and not been answered yet. A wildcard subscription
	// that was not answered is a Key without a name.
	Pending []Key
	// Rejected are the resources that are refused at the moment (NACKed, or dropped from a
	// file), each with the error; Snapshot holds their last good version, if there was one.
	Rejected []Rejection
	// Received is when the bytes that made this Update arrived.
	Received time.Time
	// Stale tells that the Snapshot is what an earlier process received (see Restore): the source has not
	// answered completely yet.
	Stale bool

	holds []*decodedMessage
}

// Rejection is a resource that could not be decoded or is not valid.
type Rejection struct {
	Key
	Err error
	// Received is when it was first refused for that reason, and Response the version of the response
	// that it came with.
	Received time.Time
	Response string
}

// String returns the resource and what is wrong with it.
func (r Rejection) String() string { return r.Key.String() + ": " + r.Err.Error() }

// Complete tells whether every wildcard subscription has been answered: without it the Snapshot
// must not be served, for it may lack most of the world. The name table, which has no part in that,
// is not waited for.
func (u Update) Complete() bool {
	for _, k := range u.Pending {
		if k.Name == "" && k.Type != NameTableType {
			return false
		}
	}
	return u.Snapshot != nil
}

// Merge returns the Update that stands for u followed by newer, for a consumer that was busy when
// newer came: the newer state, everything that changed in either, and the older time of arrival.
func (u Update) Merge(newer Update) Update {
	newer.Changed = sortedKeys(slices.Concat(u.Changed, newer.Changed))
	newer.holds = slices.Concat(u.holds, newer.holds)
	if !u.Received.IsZero() && u.Received.Before(newer.Received) {
		newer.Received = u.Received
	}
	return newer
}

// sortedKeys sorts in place, by type and name, and drops duplicates.
func sortedKeys(keys []Key) []Key {
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	return slices.Compact(keys)
}
