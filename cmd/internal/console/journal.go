package console

import (
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// journalRevisions and journalBytes bound what is remembered of the past.
	journalRevisions, journalBytes = 100, 2 << 20
	// journalObjects bounds how many objects of one revision are remembered with their values.
	journalObjects = 200
)

// Change is what a commit did to one object. Its slices must not be modified.
type Change struct {
	// Key is below the prefix, such as "routes/r.80.reviews.k3v9q2m1x7".
	Key string
	// Before and After are nil where there is nothing.
	Before, After []byte
}

// Journal remembers the last commits. It is safe for concurrent use; a nil one remembers nothing.
type Journal struct {
	mu      sync.Mutex
	commits []commit // the newest last; guarded by mu
	bytes   int      // of all values; guarded by mu
}

// commit is one revision.
type commit struct {
	revision int64
	at       time.Time
	changes  []Change
	// count is that of all changes. Where there are many, changes has keys alone, and not all.
	count, bytes int
}

// NewJournal returns an empty one.
func NewJournal() *Journal { return &Journal{} }

// Add takes a commit. It keeps references to the values, and takes time proportional to the number of
// changes up to a bound.
func (j *Journal) Add(revision int64, at time.Time, changes []Change) {
	if j == nil {
		return
	}
	c := commit{revision: revision, at: at}
	for _, change := range changes {
		if strings.HasSuffix(change.Key, "/") {
			continue // a directory, which is no object
		}
		if c.count++; c.count <= journalObjects {
			c.changes = append(c.changes, change)
			c.bytes += len(change.Key) + len(change.Before) + len(change.After)
		}
	}
	if c.count > journalObjects || c.bytes > journalBytes/4 {
		c.bytes = 0
		for i := range c.changes {
			c.changes[i].Before, c.changes[i].After = mark(c.changes[i].Before), mark(c.changes[i].After)
			c.bytes += len(c.changes[i].Key)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.commits = append(j.commits, c)
	j.bytes += c.bytes
	drop := 0
	for len(j.commits)-drop > journalRevisions || j.bytes > journalBytes {
		j.bytes -= j.commits[drop].bytes
		drop++
	}
	j.commits = slices.Delete(j.commits, 0, drop)
}

// mark stands for a value that is not remembered.
func mark(value []byte) []byte {
	if value == nil {
		return nil
	}
	return []byte{}
}

// newestFirst returns what is remembered.
func (j *Journal) newestFirst() []commit {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	commits := slices.Clone(j.commits)
	slices.Reverse(commits)
	return commits
}
