package bridge

import (
	"context"

	"golang.org/x/sync/errgroup"

	"meshbridge/cmd/internal/accesslog"
	"meshbridge/cmd/internal/logscope"
)

// openAccessLogs makes what writes access logs.
func (b *Bridge) openAccessLogs() (err error) {
	if b.config.AccessLogs == nil {
		return nil
	}
	c := *b.config.AccessLogs
	c.Registerer, c.Logger = b.registry, logscope.Logger(b.config.Logger, logscope.Telemetry)
	b.accessLogs, err = accesslog.New(c)
	return err
}

// startAccessLogs writes access logs until finish is called, which returns when what is queued has been
// written: that is after everything else has stopped and told of its last requests and connections.
func (b *Bridge) startAccessLogs(ctx context.Context) (finish func() error) {
	if b.accessLogs == nil {
		return func() error { return nil }
	}
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	var group errgroup.Group
	group.Go(func() error { return b.accessLogs.Run(ctx) })
	return func() error {
		end()
		return group.Wait()
	}
}
