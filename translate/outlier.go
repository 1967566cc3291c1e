package translate

import (
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// maxFailures is the most that APISIX counts.
	maxFailures = 254
	// defaultEjection is Envoy's base_ejection_time.
	defaultEjection = 30 * time.Second
	// rareProbes is the interval of probes of healthy endpoints in seconds: passive checks need
	// active ones, but nobody asked for them.
	rareProbes = 3600
)

// outlierPolicy is what APISIX's passive health checks take over of outlier detection.
type outlierPolicy struct {
	statuses        []int
	failures        int // responses with such a status in a row
	connectFailures int // failures to connect, resets and timeouts in a row
	ejection        int // seconds
}

// outlierPolicyOf returns nil where failures in a row eject nothing.
func outlierPolicyOf(c *clusterpb.Cluster) *outlierPolicy {
	d := c.GetOutlierDetection()
	if d == nil {
		return nil
	}
	serverErrors := failuresInARow(d.GetConsecutive_5Xx(), 5, d.GetEnforcingConsecutive_5Xx(), 100)
	gatewayErrors := failuresInARow(d.GetConsecutiveGatewayFailure(), 5, d.GetEnforcingConsecutiveGatewayFailure(), 0)
	p := &outlierPolicy{}
	switch {
	case serverErrors > 0:
		p.failures, p.statuses = serverErrors, serverErrorStatuses()
	case gatewayErrors > 0:
		p.failures, p.statuses = gatewayErrors, []int{502, 503, 504}
	}
	p.connectFailures = p.failures
	if d.GetSplitExternalLocalOriginErrors() {
		p.connectFailures = failuresInARow(d.GetConsecutiveLocalOriginFailure(), 5, d.GetEnforcingConsecutiveLocalOriginFailure(), 100)
	}
	if p.failures == 0 && p.connectFailures == 0 {
		return nil
	}
	ejection := defaultEjection
	if d.GetBaseEjectionTime() != nil {
		ejection = positive(d.GetBaseEjectionTime())
	}
	p.ejection = max(int(ejection/time.Second), 1)
	return p
}

// failuresInARow is zero where the criterion does not eject. APISIX cannot eject in a percentage of
// cases, so any above zero counts.
func failuresInARow(count *wrapperspb.UInt32Value, byDefault uint32, enforcing *wrapperspb.UInt32Value, enforcingByDefault uint32) int {
	if valueOr(enforcing, enforcingByDefault) == 0 {
		return 0
	}
	return int(min(valueOr(count, byDefault), maxFailures))
}

func valueOr(v *wrapperspb.UInt32Value, byDefault uint32) uint32 {
	if v == nil {
		return byDefault
	}
	return v.GetValue()
}

// outlierChecks renders outlier detection as passive health checks. The active check, which APISIX
// insists on, never finds an endpoint unhealthy; it ends an ejection.
func outlierChecks(c *clusterpb.Cluster) map[string]any {
	p := outlierPolicyOf(c)
	if p == nil {
		return nil
	}
	unhealthy := map[string]any{
		"http_failures": p.failures,
		"tcp_failures":  p.connectFailures,
		"timeouts":      p.connectFailures,
	}
	if len(p.statuses) > 0 {
		unhealthy["http_statuses"] = p.statuses
	}
	return map[string]any{
		"active": map[string]any{
			"type":      "tcp",
			"healthy":   map[string]any{"interval": rareProbes, "successes": 1},
			"unhealthy": map[string]any{"interval": p.ejection, "tcp_failures": maxFailures, "timeouts": maxFailures},
		},
		"passive": map[string]any{
			"type":      "http",
			"healthy":   map[string]any{"http_statuses": successStatuses(), "successes": 1},
			"unhealthy": unhealthy,
		},
	}
}

// APISIX needs every status named. The following are those in use: a list of all would be longer
// than the rest of the upstream.

// successStatuses end a row of failures.
func successStatuses() []int {
	return []int{
		200, 201, 202, 203, 204, 205, 206, 207, 301, 302, 303, 304, 307, 308,
		400, 401, 403, 404, 405, 406, 408, 409, 410, 412, 413, 415, 416, 422, 423, 426, 428, 429,
	}
}

func serverErrorStatuses() []int {
	return []int{
		500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
		520, 521, 522, 523, 524, 525, 526, 530, 598, 599, // of proxies and content delivery networks
	}
}

func reportOutlierDetection(c *clusterpb.Cluster, report reporter) {
	if c.GetOutlierDetection() == nil {
		return
	}
	p := outlierPolicyOf(c)
	if p == nil {
		report(codeSettingIgnored, "outlier_detection", "outlier detection other than by failures in a row")
		return
	}
	report(codeOutlierDetection, "outlier_detection", max(p.failures, p.connectFailures), p.ejection)
}
