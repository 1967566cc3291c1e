package translate

import (
	"maps"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Names of the filters whose configuration for single routes is translated.
const (
	filterCORS  = "envoy.filters.http.cors"
	filterFault = "envoy.filters.http.fault"
)

const codeFilterIgnored Code = "filter_ignored"

// filterConfig decodes the most specific configuration of a filter for the route. ok is false where
// there is none, where the filter does not run, or, after reporting, where it cannot be decoded.
func (rx *routeContext) filterConfig(filter string, config proto.Message) (ok bool) {
	if !slices.Contains(rx.chain.filters, filter) {
		return false // Envoy ignores configuration of filters that are not there
	}
	for _, level := range []map[string]*anypb.Any{
		rx.route.GetTypedPerFilterConfig(), rx.vhost.GetTypedPerFilterConfig(), rx.config.GetTypedPerFilterConfig(),
	} {
		packed, ok := level[filter]
		if !ok {
			continue
		}
		unwrapped, disabled := perFilterConfig(packed)
		if disabled || unwrapped == nil {
			return false
		}
		if err := unwrapped.UnmarshalTo(config); err != nil {
			rx.report(codeFilterIgnored, filterField("", filter), filter, err.Error())
			return false
		}
		return true
	}
	return false
}

// reportFilterConfigs reports configuration for filters that do not run in APISIX, except for those
// that restrict access: they make the route answer 403.
func reportFilterConfigs(chain *Chain, configs map[string]*anypb.Any, at string, report reporter) {
	for _, filter := range slices.Sorted(maps.Keys(configs)) {
		config, disabled := perFilterConfig(configs[filter])
		message := messageName(config)
		switch {
		case disabled, filter == filterCORS, filter == filterFault, filter == chain.plugins.rateLimitFilter, filter == filterStatefulSession,
			isAccessFilter(message), isTelemetry(filter, message), !slices.Contains(chain.filters, filter),
			slices.ContainsFunc(chain.access, func(r accessRule) bool { return r.filter == filter }):
		default:
			report(codeFilterIgnored, filterField(at, filter), filter, message)
		}
	}
}

func filterField(at, filter string) string {
	return at + "typed_per_filter_config[" + strconv.Quote(filter) + "]"
}
