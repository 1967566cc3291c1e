package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// openInternal opens the port on which APISIX asks the bridge what it cannot know itself. Translation tells
// APISIX of the address, so that it is opened first.
func (b *Bridge) openInternal(ctx context.Context) error {
	address := b.config.Internal
	if address == Off || address == "" {
		return nil
	}
	// There is no telling who asks: whoever can must be on this host.
	if loopback, err := isLoopback("internal", address); err != nil || !loopback {
		return errors.Join(err, fmt.Errorf("--internal %s: must be a loopback address", address))
	}
	l, err := b.listen(ctx, "internal", "internal", address)
	if err != nil {
		return err
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		b.config.Translate.Internal = a.AddrPort()
	}
	b.internal = http.NewServeMux()
	b.servers = append(b.servers, server{listener: l, handler: b.internal})
	b.config.Logger.InfoContext(ctx, "serving internal", addressOf(l))
	if here, err := isLoopback("listen", b.config.Listen); err == nil && !here {
		b.config.Logger.WarnContext(ctx, "an APISIX on another host cannot ask on the internal port, and refuses what it would ask about: give --internal off", addressOf(l))
	}
	return nil
}
