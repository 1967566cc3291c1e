package bridge

import (
	"context"
	"net"
	"sync"

	"golang.org/x/sync/errgroup"

	"meshbridge/capture"
	"meshbridge/cmd/internal/accesslog"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/translate"
	"meshbridge/xds"
)

// openAccessLogs makes what writes access logs.
func (b *Bridge) openAccessLogs() (err error) {
	if b.config.AccessLogs == nil {
		return nil
	}
	c := *b.config.AccessLogs
	c.Registerer, c.Logger = b.registry, logscope.Logger(b.config.Logger, logscope.Telemetry)
	c.Node, c.World = b.config.Node, accessLogWorld{b}
	c.Dialer = accessLogDialer(sync.OnceValue(func() *capture.Dialer { return capture.NewDialer(b.identity, c.Logger) }))
	if b.accessLogs, err = accesslog.New(c); err != nil {
		return err
	}
	b.pipeline.published = b.accessLogs.WorldChanged
	return nil
}

// accessLogWorld is the accesslog.World of the bridge.
type accessLogWorld struct{ *Bridge }

func (w accessLogWorld) Snapshot() *xds.Snapshot {
	view := w.pipeline.view.Load()
	if view == nil {
		return nil
	}
	return view.Snapshot
}

// accessLogDialer makes a dialer when it is first needed: the workload's certificate comes with capture, which
// tells of connections and so is opened after what writes their logs.
type accessLogDialer func() *capture.Dialer

func (d accessLogDialer) Dial(ctx context.Context, to *translate.OverlayEndpoint, host string) (net.Conn, error) {
	return d().Dial(ctx, to, host)
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
