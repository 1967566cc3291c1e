package soak

import (
	"sync"
	"time"
)

// history is what something was configured to be.
type history[T any] struct {
	mu       sync.Mutex
	versions []version[T] // guarded by mu
}

// version is what it was from one time to another. Until is zero for the newest.
type version[T any] struct {
	value       T
	from, until time.Time
}

// change makes a new version of what write puts in place. Nobody can have seen it before write began, and
// the last one may have been read until it returned.
func (h *history[T]) change(value T, write func() error) error {
	from := time.Now()
	h.mu.Lock()
	h.versions = append(h.versions, version[T]{value: value, from: from})
	h.mu.Unlock()
	err := write()
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.versions); n > 1 {
		h.versions[n-2].until = time.Now()
	}
	return err
}

// current returns the newest.
func (h *history[T]) current() T {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.versions[len(h.versions)-1].value
}

// during returns the values that were there at some time between two.
func (h *history[T]) during(from, until time.Time) []T {
	h.mu.Lock()
	defer h.mu.Unlock()
	var values []T
	for _, v := range h.versions {
		if !v.from.After(until) && (v.until.IsZero() || !v.until.Before(from)) {
			values = append(values, v.value)
		}
	}
	return values
}
