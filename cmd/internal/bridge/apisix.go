package bridge

import (
	"context"

	"golang.org/x/sync/errgroup"

	"meshbridge/cmd/internal/apisixprocess"
	"meshbridge/cmd/internal/logscope"
)

// APISIXConfig configures an APISIX that the bridge starts.
type APISIXConfig struct {
	// Process is as apisixprocess has it; Configuration and Logger are set by New.
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

// runAPISIX runs APISIX from the first world on, until it is stopped or ctx ends. stop returns when it has
// ended.
func (b *Bridge) runAPISIX(ctx context.Context, group *errgroup.Group) (stop func()) {
	if b.apisix == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	group.Go(func() error {
		defer close(ended)
		defer cancel()
		return b.apisix.Run(ctx, b.pipeline.ready)
	})
	return func() {
		cancel()
		<-ended
	}
}
