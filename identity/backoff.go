package identity

import (
	"cmp"
	"math/rand/v2"
	"time"
)

// Backoff is the time between attempts that fail. It doubles from Base to Max and is spread evenly
// over its upper half, so that the workloads of a mesh do not come back in step.
type Backoff struct {
	Base time.Duration // default 1 s
	Max  time.Duration // default 1 min
}

func (b Backoff) withDefaults() Backoff {
	b.Base = cmp.Or(b.Base, time.Second)
	b.Max = max(b.Base, cmp.Or(b.Max, time.Minute))
	return b
}

// wait returns the time to wait after so many failures before the last one.
func (b Backoff) wait(failures int) time.Duration {
	d := b.Base
	for ; failures > 0 && d < b.Max; failures-- {
		d *= 2
	}
	d = min(d, b.Max)
	//nolint:gosec // spreading load needs no secret randomness
	return d/2 + rand.N(d/2+1)
}
