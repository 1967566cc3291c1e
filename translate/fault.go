package translate

import (
	"slices"
	"strconv"

	commonfaultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"meshbridge/translate/apisix"
)

// withFault injects the faults of a route into its branches. A branch that answers with
// fault-injection itself gets one before it that aborts.
func withFault(rx *routeContext, branches []branch) []branch {
	var config faultpb.HTTPFault
	if !rx.filterConfig(filterFault, &config) {
		return branches
	}
	field := filterField("", filterFault) + "."
	reportUnknown(&config, rx.report, field)
	switch {
	case len(config.GetHeaders()) > 0:
		rx.report(codeFault, field+"headers", "faults that depend on headers are not injected")
		return branches
	case config.GetUpstreamCluster() != "":
		rx.report(codeFault, field+"upstream_cluster", "faults that depend on the cluster are not injected")
		return branches
	case len(config.GetDownstreamNodes()) > 0:
		rx.report(codeFault, field+"downstream_nodes", "faults that depend on the client's node are not injected")
		return branches
	}
	delay := rx.faultDelay(config.GetDelay(), field+"delay")
	abort, fraction := rx.faultAbort(config.GetAbort(), field+"abort")
	if delay == nil && abort == nil {
		return branches
	}
	var out []branch
	for _, b := range branches {
		own, answers := b.plugins[pluginFaultInjection].(faultInjection)
		if !answers {
			out = append(out, b.plus(pluginFaultInjection, faultInjection{Abort: abort, Delay: delay}))
			continue
		}
		if abort != nil {
			aborting := *abort
			aborting.Vars = nil
			vars := b.vars
			if fraction != nil {
				vars = slices.Concat(apisix.List(fraction), vars)
			}
			out = append(out, branch{}.with(joinSuffix("fault", b.suffix), vars,
				pluginFaultInjection, faultInjection{Abort: &aborting, Delay: delay}))
		}
		own.Delay = delay
		out = append(out, b.plus(pluginFaultInjection, own))
	}
	return out
}

// faultDelay returns nil where there is no delay. Durations keep their fractions of a second.
func (rx *routeContext) faultDelay(config *commonfaultpb.FaultDelay, field string) *faultDelay {
	if config.GetHeaderDelay() != nil {
		rx.report(codeFault, field+".header_delay", "delays that a request header asks for are not injected")
	}
	duration := positive(config.GetFixedDelay())
	fraction, some := fractionOf(config.GetPercentage(), apisix.WindowDelay)
	if duration == 0 || !some {
		return nil
	}
	return &faultDelay{Duration: seconds(duration), Vars: alternatives(fraction)}
}

// faultAbort returns nil where there is no abort. fraction is the condition under which it happens.
func (rx *routeContext) faultAbort(config *faultpb.FaultAbort, field string) (abort *faultAbort, fraction apisix.Cond) {
	fraction, some := fractionOf(config.GetPercentage(), apisix.WindowAbort)
	if !some {
		return nil, nil
	}
	abort = &faultAbort{Body: apisix.EscapeTemplate(config.GetResponseBody()), Vars: alternatives(fraction)}
	if abort.Body == "" {
		abort.Body = "fault filter abort" // Envoy's
	}
	switch e := config.GetErrorType().(type) {
	case *faultpb.FaultAbort_HttpStatus:
		abort.HTTPStatus = int(e.HttpStatus)
		abort.Headers = map[string]string{"content-type": "text/plain"}
	case *faultpb.FaultAbort_GrpcStatus:
		abort.HTTPStatus, abort.Body = 200, ""
		abort.Headers = map[string]string{
			"content-type": "application/grpc",
			"grpc-status":  strconv.FormatUint(uint64(e.GrpcStatus), 10),
		}
	case *faultpb.FaultAbort_HeaderAbort_:
		rx.report(codeFault, field+".header_abort", "aborts that a request header asks for are not injected")
		return nil, nil
	}
	if abort.HTTPStatus < 200 {
		rx.report(codeFault, field, "an abort without a final status is not injected")
		return nil, nil
	}
	return abort, fraction
}

// fractionOf returns the condition that holds for a fraction of requests; nil for all or none of them,
// of which some tells.
func fractionOf(f *typepb.FractionalPercent, window int) (c apisix.Cond, some bool) {
	numerator, denominator := uint64(f.GetNumerator()), denominatorOf(f)
	switch {
	case numerator == 0:
		return nil, false
	case numerator >= denominator:
		return nil, true
	}
	return apisix.HexWithin(numerator, denominator, window), true
}

func denominatorOf(f *typepb.FractionalPercent) uint64 {
	switch f.GetDenominator() {
	case typepb.FractionalPercent_TEN_THOUSAND:
		return 10_000
	case typepb.FractionalPercent_MILLION:
		return 1_000_000
	case typepb.FractionalPercent_HUNDRED:
	}
	return 100
}

// alternatives is the form in which fault-injection takes a condition: a list of lists, one of which
// must hold; none without a condition.
func alternatives(c apisix.Cond) []apisix.Vars {
	if c == nil {
		return nil
	}
	return []apisix.Vars{apisix.List(c)}
}
