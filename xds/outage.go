package xds

import (
	"log/slog"
	"time"
)

// repeatAfter is how often the same cause of failures is told again. Attempts go on meanwhile.
const repeatAfter = time.Minute

// outage are failed attempts in a row, as the log tells of them: each new cause at once, the same one rarely,
// and that it is over.
type outage struct {
	began    time.Time // zero without one
	attempts int
	cause    string
	told     time.Time
}

// failed notes an attempt, and returns the level at which it is told.
func (o *outage) failed(now time.Time, cause string) slog.Level {
	if o.attempts == 0 {
		o.began = now
	}
	o.attempts++
	if cause == o.cause && now.Sub(o.told) < repeatAfter {
		return slog.LevelDebug
	}
	o.cause, o.told = cause, now
	return slog.LevelWarn
}

// over ends it, and returns what there is to tell of it.
func (o *outage) over(now time.Time) []slog.Attr {
	if o.attempts == 0 {
		return nil
	}
	attrs := []slog.Attr{slog.Int("failures", o.attempts), slog.Duration("after", now.Sub(o.began))}
	*o = outage{}
	return attrs
}
