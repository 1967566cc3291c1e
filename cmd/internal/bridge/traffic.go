package bridge

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"meshbridge/cmd/internal/logscope"
)

// traffic returns what serves connections, nil where that is an APISIX of somebody else.
func (b *Bridge) traffic() traffic {
	switch {
	case b.capture != nil:
		return &capturedTraffic{b}
	case b.apisix != nil:
		return &apisixTraffic{b}
	default:
		return nil
	}
}

// capturedTraffic comes through capture, and mostly to APISIX from there.
type capturedTraffic struct{ *Bridge }

func (t *capturedTraffic) refuse() { t.capture.StopAccepting() }

func (t *capturedTraffic) idle(ctx context.Context) { t.drainCapture(ctx) }

func (t *capturedTraffic) finish(ctx context.Context, limit time.Duration) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if t.apisix == nil {
		t.drainCapture(limited)
		return
	}
	var connections sync.WaitGroup
	connections.Go(func() { t.drainCapture(limited) })
	// It closes connections that nothing is in flight on, and ends with the last one. What remains in
	// capture then leads nowhere, or past APISIX.
	t.apisix.Finish(ctx)
	cancel()
	connections.Wait()
}

func (b *Bridge) drainCapture(ctx context.Context) {
	err := b.capture.Drain(ctx)
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		b.config.Logger.WarnContext(ctx, "draining", slog.Any("error", err))
	}
}

// apisixTraffic comes to an APISIX of the bridge's at once.
type apisixTraffic struct{ *Bridge }

// refuse does nothing: nginx stops accepting only when it is to finish.
func (*apisixTraffic) refuse() {}

// Asking APISIX for its connections, as pilot-agent asks Envoy.
const (
	connectionsInterval = time.Second
	connectionsRetries  = 5
)

func (t *apisixTraffic) idle(ctx context.Context) {
	log := logscope.Logger(t.config.Logger, logscope.APISIX)
	ticker := time.NewTicker(connectionsInterval)
	defer ticker.Stop()
	for failures := 0; failures < connectionsRetries; {
		open, err := t.apisix.Connections(ctx)
		switch {
		case err != nil:
			failures++
			log.WarnContext(ctx, "connections of APISIX are not known", slog.Any("error", err))
		case open == 0:
			return
		default:
			failures = 0
			log.DebugContext(ctx, "connections are open", slog.Int("connections", open))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (t *apisixTraffic) finish(ctx context.Context, _ time.Duration) {
	t.apisix.Finish(ctx) // which has a limit of its own
}
