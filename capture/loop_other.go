//go:build !linux

package capture

import "log/slog"

// loops relays nothing here: every connection has goroutines.
type loops struct{ done chan struct{} }

func newLoops(*slog.Logger, *metrics) (*loops, error) { return &loops{done: make(chan struct{})}, nil }

func (ls *loops) close() {}

func (ls *loops) run() { <-ls.done }

func (ls *loops) stop() { close(ls.done) }

func (ls *loops) take(relayed, plainConn, plainConn) bool { return false }
