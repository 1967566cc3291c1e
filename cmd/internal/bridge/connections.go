package bridge

import (
	"context"

	"meshbridge/capture"
	"meshbridge/cmd/internal/telemetry"
)

// openConnections makes what counts and logs connections that carry no HTTP, of which capture tells; nil where
// neither is wanted.
func (b *Bridge) openConnections() capture.Observer {
	config := b.telemetryConfig()
	if config.Uncounted && config.Entries == nil {
		return nil
	}
	b.connections = telemetry.NewConnections(config)
	return b.connections
}

// runConnections keeps what is counted until ctx ends.
func (b *Bridge) runConnections(ctx context.Context) error {
	if b.connections == nil {
		return nil
	}
	return b.connections.Run(ctx)
}
