package envoytest

import (
	"slices"
	"strconv"

	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
)

// runFault delays and aborts. Delays and aborts are drawn independently.
func (s *Stream) runFault(f *faultpb.HTTPFault) {
	if f == nil || !s.faultApplies(f) {
		return
	}
	d := s.decision
	if delay := f.GetDelay(); delay.GetFixedDelay() != nil && s.request.Draws.Delay < share(delay.GetPercentage()) {
		d.Delay = max(delay.GetFixedDelay().AsDuration(), 0)
	}
	if f.GetDelay().GetHeaderDelay() != nil || f.GetAbort().GetHeaderAbort() != nil {
		d.note("faults that request headers ask for are not evaluated")
	}
	if f.GetAbort() == nil || s.request.Draws.Abort >= share(f.GetAbort().GetPercentage()) {
		return
	}
	switch e := f.GetAbort().GetErrorType().(type) {
	case *faultpb.FaultAbort_HttpStatus:
		d.answer(Fault, int(e.HttpStatus))
		d.Body = "fault filter abort"
	case *faultpb.FaultAbort_GrpcStatus:
		d.answer(Fault, 200)
		d.GRPCStatus = strconv.FormatUint(uint64(e.GrpcStatus), 10)
	}
	if body := f.GetAbort().GetResponseBody(); body != "" {
		d.Body = body
	}
}

func (s *Stream) faultApplies(f *faultpb.HTTPFault) bool {
	if cluster := f.GetUpstreamCluster(); cluster != "" && (s.route == nil || s.clusterName() != cluster) {
		return false
	}
	if nodes := f.GetDownstreamNodes(); len(nodes) > 0 && !slices.Contains(nodes, s.headers.get("x-envoy-downstream-service-node")) {
		return false
	}
	for _, h := range f.GetHeaders() {
		if !s.MatchHeader(h) {
			return false
		}
	}
	return true
}
