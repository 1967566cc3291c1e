package accesslog

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	access "meshbridge/translate/accesslog"
)

const (
	// maxMessage is about how much is sent at once. Servers of gRPC take 4 MiB.
	maxMessage = 1 << 20
	// How long it is waited after a failure, doubling from the first to the last.
	firstRetry, lastRetry = 250 * time.Millisecond, 15 * time.Second
	// sayAgain is how often it is said that a service still fails.
	sayAgain = time.Minute
)

// protocol is how a service is told of entries. One goroutine uses it.
type protocol interface {
	// add adds an entry to the next message, and returns how long it is there.
	add(l *access.Log, e *access.Entry) int
	// send sends the message, which is as before where there is an error. After a [refusal] it is not to be sent
	// again.
	send(ctx context.Context) error
	// reset begins a new message.
	reset()
	// close ends what is open, and waits for the service to have it all, until ctx ends.
	close(ctx context.Context)
}

// refusal tells that a service does not want some of a message's entries, or any, and says why.
type refusal struct {
	entries int
	why     string
}

func (r *refusal) Error() string { return r.why }

// service sends entries to a gRPC service. One goroutine uses it, but for its target.
type service struct {
	to       *destination
	target   *target
	conn     *grpc.ClientConn
	protocol protocol
	log      *slog.Logger
	failures *prometheus.CounterVec // by reason

	entries int // in the message
	size    int // of the message
	failing bool
	said    time.Time // when it was said last that it fails
}

// run sends what a queue has until it is closed and empty, or ctx has ended.
func (s *service) run(ctx context.Context, q *queue) {
	defer func() { _ = s.conn.Close() }()
	for q.wait(ctx) {
		s.gather(ctx, q)
		s.deliver(ctx, q)
	}
	s.protocol.close(ctx)
}

// gather fills the message until it is time to send it.
func (s *service) gather(ctx context.Context, q *queue) {
	timer := time.NewTimer(s.to.flushInterval)
	defer timer.Stop()
	for s.fill(q, s.to.bufferSize); s.size < s.to.bufferSize; s.fill(q, s.to.bufferSize) {
		select {
		case <-q.wake:
			continue
		case <-ctx.Done():
		case <-q.closed:
		case <-timer.C:
		}
		break
	}
	s.fill(q, maxMessage) // what waits goes along
}

// fill adds what a queue has until the message has about that size.
func (s *service) fill(q *queue, size int) {
	var items []item
	for s.size < size {
		if items = q.take(items[:0], 32); len(items) == 0 {
			return
		}
		for _, i := range items {
			s.size += s.protocol.add(i.log, i.entry)
			s.entries++
		}
	}
}

// deliver sends the message, again and again if need be.
func (s *service) deliver(ctx context.Context, q *queue) {
	for attempt := 0; s.entries > 0; attempt++ {
		err := s.protocol.send(ctx)
		s.say(ctx, err)
		lost := 0
		if refused := (*refusal)(nil); errors.As(err, &refused) {
			lost = min(max(refused.entries, 0), s.entries)
		} else if ctx.Err() != nil && err != nil {
			lost = s.entries
		} else if err != nil {
			s.target.lower(time.Now(), s.conn.GetState())
			if q.closing() { // there is not much time
				s.conn.ResetConnectBackoff()
				attempt = 0
			}
			q.pause(ctx, backoffAfter(attempt))
			continue
		}
		q.counts.written.Add(float64(s.entries - lost))
		q.counts.lost.Add(float64(lost))
		s.protocol.reset()
		s.entries, s.size = 0, 0
	}
}

// backoffAfter is how long to wait after so many failures before the last one, spread so that proxies do not come
// in step.
func backoffAfter(failures int) time.Duration {
	d := firstRetry
	for ; failures > 0 && d < lastRetry; failures-- {
		d *= 2
	}
	d = min(d, lastRetry)
	//nolint:gosec // spreading load needs no secret randomness
	return d/2 + rand.N(d/2+1)
}

// say counts and tells failures, and when it works again.
func (s *service) say(ctx context.Context, err error) {
	now := time.Now()
	which := slog.String("cluster", s.to.cluster)
	if err == nil {
		if s.failing {
			s.failing = false
			s.log.InfoContext(ctx, "the service of an access log has entries again", which)
		}
		return
	}
	reason := "refused"
	refused := (*refusal)(nil)
	if !errors.As(err, &refused) {
		reason, err = s.target.reason(err)
	}
	s.failures.WithLabelValues(reason).Inc()
	if errors.Is(ctx.Err(), context.Canceled) || s.failing && now.Sub(s.said) < sayAgain {
		return
	}
	s.failing, s.said = true, now
	if refused != nil {
		s.log.WarnContext(ctx, "the service of an access log refuses entries", which, slog.Int("entries", refused.entries), slog.Any("error", err))
		return
	}
	s.log.WarnContext(ctx, "the service of an access log does not get entries", which, slog.String("reason", reason), slog.Any("error", err))
}

// outgoing adds the metadata that a service is sent.
func (d *destination) outgoing(ctx context.Context) context.Context {
	if d.metadata == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, strings.Split(d.metadata, "\x00")...)
}
