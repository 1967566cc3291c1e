//go:build !linux

package reap

import (
	"context"
	"log/slog"
	"os/exec"
)

// Reaper has nothing to do: only on Linux is the bridge the first process of a container.
type Reaper struct{}

// New returns a Reaper.
func New(*slog.Logger) *Reaper { return &Reaper{} }

// Start starts a command; Wait must follow.
func (r *Reaper) Start(cmd *exec.Cmd) error { return cmd.Start() }

// Wait waits for a command that Start has started.
func (r *Reaper) Wait(cmd *exec.Cmd) error { return cmd.Wait() }

// Run returns when ctx ends.
func (r *Reaper) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
