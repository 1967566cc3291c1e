package bridge

import (
	"meshbridge/cmd/internal/authn"
	"meshbridge/cmd/internal/logscope"
)

// verifyTokens serves APISIX's questions about tokens on the internal port.
func (b *Bridge) verifyTokens() {
	if b.internal == nil {
		return
	}
	b.pipeline.tokens = authn.New(logscope.Logger(b.config.Logger, logscope.Bridge), b.registry)
	b.internal.Handle("/authn/{key}", b.pipeline.tokens)
}
