package xds

import (
	"cmp"
	"math/rand/v2"
	"time"
)

// Backoff is the time between two streams. It doubles from Base to Max with every stream that did
// not do well, and is spread evenly over its upper half, so that the proxies of a mesh do not come
// back in step. There is no stream without a wait before the next: a server that ends each one as
// soon as it is open costs a few attempts, not a storm.
type Backoff struct {
	Base time.Duration // default 250 ms
	Max  time.Duration // default 30 s
}

// healthyAfter is how many times Base a stream must have lasted, having been answered, to count as
// having done well.
const healthyAfter = 10

func (b Backoff) withDefaults() Backoff {
	b.Base = cmp.Or(b.Base, 250*time.Millisecond)
	b.Max = max(b.Base, cmp.Or(b.Max, 30*time.Second))
	return b
}

// wait returns the time to wait after so many failures in a row.
func (b Backoff) wait(failures int) time.Duration {
	d := b.Base
	for ; failures > 0 && d < b.Max; failures-- {
		d *= 2
	}
	d = min(d, b.Max)
	//nolint:gosec // spreading load needs no secret randomness
	return d/2 + rand.N(d/2+1)
}
