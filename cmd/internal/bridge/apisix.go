package bridge

import (
	"context"
	"os"

	"golang.org/x/sync/errgroup"

	"meshbridge/cmd/internal/apisixprocess"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/cmd/internal/reap"
)

// APISIXConfig configures an APISIX that the bridge starts.
type APISIXConfig struct {
	// Process is as apisixprocess has it; Configuration, StopTime, Children and Logger are set by New.
	Process apisixprocess.Config
	// Render makes APISIX's configuration for the URL of the etcd port.
	Render func(etcd string) ([]byte, error)
}

func (b *Bridge) openAPISIX() (err error) {
	c := b.config.APISIX
	if c == nil {
		return nil
	}
	config := c.Process
	config.Logger = logscope.Logger(b.config.Logger, logscope.APISIX)
	config.StopTime = b.config.Lifecycle.StopTime
	if os.Getpid() == 1 {
		// The first process of a container inherits those whose parents have died.
		b.reaper = reap.New(config.Logger)
		config.Children = b.reaper
	}
	scheme := "http"
	if b.config.TLS != nil {
		scheme = "https"
	}
	if config.Configuration, err = c.Render(scheme + "://" + b.listener.Addr().String()); err != nil {
		return err
	}
	b.apisix, err = apisixprocess.New(config)
	return err
}

// runAPISIX runs APISIX from the first world on, until it has finished or ctx ends.
func (b *Bridge) runAPISIX(ctx context.Context, group *errgroup.Group) {
	if b.apisix == nil {
		return
	}
	group.Go(func() error { return b.apisix.Run(ctx, b.pipeline.ready) })
	if b.reaper != nil {
		group.Go(func() error { return b.reaper.Run(ctx) })
	}
}
