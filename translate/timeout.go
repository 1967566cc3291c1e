package translate

import (
	"cmp"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"meshbridge/translate/apisix"
)

const (
	// noTimeout stands for a disabled timeout, in seconds: nginx cannot disable one, and has 60 s
	// where none is given.
	noTimeout = 86400
	// defaultRouteTimeout is Envoy's where a route says nothing; istiod always says something.
	defaultRouteTimeout = 15 * time.Second
	// defaultConnectTimeout is Envoy's where a cluster says nothing.
	defaultConnectTimeout = 5 * time.Second
	// shortestTimeout is nginx's resolution. A shorter one would be rounded to zero.
	shortestTimeout = time.Millisecond
)

// timeouts are those of a route; zero is none.
type timeouts struct {
	// response is the time for the whole response, with all retries.
	response time.Duration
	// attempt is the time for one attempt, connecting included.
	attempt time.Duration
	// idle is the time between two reads or writes.
	idle time.Duration
}

func compileTimeouts(rx *routeContext, action *routepb.RouteAction, policy *routepb.RetryPolicy) timeouts {
	t := timeouts{
		response: defaultRouteTimeout,
		attempt:  positive(policy.GetPerTryTimeout()),
		idle:     rx.chain.streamIdleTimeout,
	}
	if action.GetIdleTimeout() != nil {
		t.idle = positive(action.GetIdleTimeout())
	}
	t.idle = shorter(t.idle, positive(policy.GetPerTryIdleTimeout()))
	if action.GetTimeout() != nil {
		t.response = positive(action.GetTimeout())
	}
	if t.response > 0 {
		rx.report(codeTimeoutPerRead, "route.timeout", t.response, t.read())
	}
	if m := action.GetMaxStreamDuration(); positive(m.GetMaxStreamDuration()) > 0 {
		rx.report(codeSettingIgnored, "route.max_stream_duration.max_stream_duration", "max_stream_duration")
	}
	return t
}

// set tells whether the route has timeouts; where not, those of the upstream apply.
func (t timeouts) set() bool { return t != timeouts{} }

// ofUpgraded returns the timeouts of websocket connections. Envoy counts the others from the end of the
// request, which an upgraded one does not have; nginx would end connections that are idle for so long.
func (t timeouts) ofUpgraded() timeouts { return timeouts{idle: t.idle} }

// of returns the timeouts of a route to a cluster with a connect timeout in seconds; nil where the
// upstream's apply.
func (t timeouts) of(connect float64) *apisix.Timeout {
	if !t.set() {
		return nil
	}
	connecting := cmp.Or(connect, defaultConnectTimeout.Seconds())
	if attempt := shorter(t.response, t.attempt); attempt > 0 {
		connecting = min(connecting, seconds(attempt))
	}
	read := seconds(t.read())
	return &apisix.Timeout{Connect: connecting, Send: read, Read: read}
}

// read returns the time between two reads or writes, which is all that nginx limits. There is one:
// call it if the timeouts are set.
func (t timeouts) read() time.Duration { return shorter(shorter(t.response, t.attempt), t.idle) }

// upstreamTimeouts are those of routes without their own.
func upstreamTimeouts(connect float64) *apisix.Timeout {
	return &apisix.Timeout{Connect: connect, Send: noTimeout, Read: noTimeout}
}

// streamTimeouts are those of TCP connections. Capture ends the ones that are idle for too long; nginx
// must not do so before, and cannot count more than 24 days.
func streamTimeouts(connect float64) *apisix.Timeout {
	const forever = 20 * 24 * time.Hour
	return &apisix.Timeout{Connect: connect, Send: forever.Seconds(), Read: forever.Seconds()}
}

// seconds is a duration in APISIX's unit. It keeps fractions: 250 ms are 0.25.
func seconds(d time.Duration) float64 { return max(d, shortestTimeout).Seconds() }

// positive returns the duration, or zero where there is none.
func positive(d *durationpb.Duration) time.Duration { return max(d.AsDuration(), 0) }

// shorter returns the smaller of two durations of which zero is unlimited.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
