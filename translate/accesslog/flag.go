package accesslog

import "strings"

// flagNames are Envoy's response flags, short and long, in the order of its enumeration.
func flagNames() [][2]string {
	return [][2]string{
		{"LH", "FailedLocalHealthCheck"},
		{"UH", "NoHealthyUpstream"},
		{"UT", "UpstreamRequestTimeout"},
		{"LR", "LocalReset"},
		{"UR", "UpstreamRemoteReset"},
		{"UF", "UpstreamConnectionFailure"},
		{"UC", "UpstreamConnectionTermination"},
		{"UO", "UpstreamOverflow"},
		{"NR", "NoRouteFound"},
		{"DI", "DelayInjected"},
		{"FI", "FaultInjected"},
		{"RL", "RateLimited"},
		{"UAEX", "UnauthorizedExternalService"},
		{"RLSE", "RateLimitServiceError"},
		{"DC", "DownstreamConnectionTermination"},
		{"URX", "UpstreamRetryLimitExceeded"},
		{"SI", "StreamIdleTimeout"},
		{"IH", "InvalidEnvoyRequestHeaders"},
		{"DPE", "DownstreamProtocolError"},
		{"UMSDR", "UpstreamMaxStreamDurationReached"},
		{"RFCF", "ResponseFromCacheFilter"},
		{"NFCF", "NoFilterConfigFound"},
		{"DT", "DurationTimeout"},
		{"UPE", "UpstreamProtocolError"},
		{"NC", "NoClusterFound"},
		{"OM", "OverloadManagerTerminated"},
		{"DF", "DnsResolutionFailed"},
		{"DO", "DropOverload"},
		{"DR", "DownstreamRemoteReset"},
		{"UDO", "UnconditionalDropOverload"},
	}
}

// longFlags spells response flags out.
func longFlags(flags string) string {
	var out []string
	for flag := range strings.SplitSeq(flags, ",") {
		for _, name := range flagNames() {
			if name[0] == flag {
				flag = name[1]
				break
			}
		}
		out = append(out, flag)
	}
	return strings.Join(out, ",")
}

// flagBits are response flags as a number, a bit for each (CEL's response.flags).
func flagBits(flags string) int64 {
	var bits int64
	for flag := range strings.SplitSeq(flags, ",") {
		for i, name := range flagNames() {
			if name[0] == flag {
				bits |= 1 << i
			}
		}
	}
	return bits
}
