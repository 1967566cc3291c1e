package bridge

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// readyInterval is how often APISIX is asked whether it is ready for the first time.
const readyInterval = 50 * time.Millisecond

// readyForTraffic tells whether the kubelet may have traffic sent to this pod, or why not. Losing istiod
// later does not make the bridge unready: the last good world is better than none.
func (b *Bridge) readyForTraffic(ctx context.Context) error {
	if err := b.lifecycle.err(); err != nil {
		return err
	}
	switch {
	case b.admin.Failed():
		return errors.New("/healthcheck/fail was called on the admin port")
	case !isClosed(b.pipeline.ready):
		return errors.New("the first complete configuration has not been committed")
	case !b.serves():
		return errors.New("APISIX does not have the first configuration yet")
	case b.apisix != nil:
		return b.apisix.Ready(ctx)
	default:
		return nil
	}
}

// remark is for people who ask for the readiness: the kubelet reads the status alone.
func (b *Bridge) remark() string {
	if v := b.pipeline.view.Load(); v != nil && v.Stale {
		return "with the last good state of " + v.Received.UTC().Format(time.RFC3339) + ": istiod has not sent a complete configuration since the start"
	}
	return ""
}

// announceReady logs and measures how long it took to become ready for the first time.
func (b *Bridge) announceReady(ctx context.Context) error {
	conditions := []<-chan struct{}{b.pipeline.ready}
	if b.pipeline.feed != nil {
		conditions = append(conditions, b.pipeline.feed.serving)
	}
	for _, c := range conditions {
		select {
		case <-ctx.Done():
			return nil
		case <-c:
		}
	}
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	for b.apisix != nil && b.apisix.Ready(ctx) != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
	took := time.Since(b.started)
	b.metrics.startup.Set(took.Seconds())
	b.config.Logger.InfoContext(ctx, "ready for traffic", slog.Int64("after_ms", took.Milliseconds()))
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
