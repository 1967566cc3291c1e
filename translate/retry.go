package translate

import (
	"strings"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// defaultBackOff is Envoy's base interval between retries, so short that nobody relies on it.
const defaultBackOff = 25 * time.Millisecond

// retryPolicyOf returns the retry policy of the route, or else of its virtual host.
func retryPolicyOf(rx *routeContext, action *routepb.RouteAction) *routepb.RetryPolicy {
	if p := action.GetRetryPolicy(); p != nil {
		return p
	}
	return rx.vhost.GetRetryPolicy()
}

// compileRetries returns how often a request is tried again. Envoy does not retry without a policy,
// nor APISIX without knowing what for.
func compileRetries(rx *routeContext, policy *routepb.RetryPolicy) int {
	if policy == nil {
		return 0
	}
	const field = "route.retry_policy."
	reportUnknown(policy, rx.report, field)
	native, others := retryConditions(policy)
	if len(others) > 0 {
		rx.report(codeRetryCondition, field+"retry_on", strings.Join(others, ", "))
	}
	if backOff := policy.GetRetryBackOff().GetBaseInterval().AsDuration(); backOff > defaultBackOff {
		rx.report(codeRetryBackOff, field+"retry_back_off", backOff)
	}
	for _, p := range policy.GetRetryHostPredicate() {
		// APISIX never takes an endpoint again while there is another one.
		if p.GetName() != "envoy.retry_host_predicates.previous_hosts" {
			rx.report(codeSettingIgnored, field+"retry_host_predicate", "the retry host predicate "+p.GetName())
		}
	}
	// APISIX takes endpoints of the next priority when it has tried all of one.
	if p := policy.GetRetryPriority(); p != nil && p.GetName() != "envoy.retry_priorities.previous_priorities" {
		rx.report(codeSettingIgnored, field+"retry_priority", "the retry priority "+p.GetName())
	}
	switch {
	case !native:
		return 0
	case policy.GetNumRetries() == nil:
		return 1
	}
	return int(policy.GetNumRetries().GetValue())
}

// isDefaultRetry tells whether a condition list is Istio's default for all routes.
func isDefaultRetry(retryOn string) bool {
	const common = "connect-failure,refused-stream,unavailable,cancelled"
	return retryOn == common || retryOn == common+",retriable-status-codes"
}

// retryConditions tells whether there is a condition on which nginx retries, and lists those on
// which it does not, except where nobody chose them.
func retryConditions(policy *routepb.RetryPolicy) (native bool, others []string) {
	if isDefaultRetry(policy.GetRetryOn()) {
		return true, nil
	}
	for condition := range strings.SplitSeq(policy.GetRetryOn(), ",") {
		switch condition = strings.TrimSpace(condition); condition {
		case "":
		case "connect-failure", "refused-stream", "reset", "reset-before-request":
			native = true
		case "5xx", "gateway-error":
			native = true // both include failures to connect, resets and timeouts
			others = append(others, condition+" responses")
		case "retriable-status-codes":
			if len(policy.GetRetriableStatusCodes()) > 0 {
				others = append(others, "retriable status codes")
			}
		case "retriable-headers":
			if len(policy.GetRetriableHeaders()) > 0 {
				others = append(others, "retriable headers")
			}
		default:
			others = append(others, condition)
		}
	}
	return native, others
}
