package translate

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// codeHealthCheck is about active health checks.
const codeHealthCheck Code = "health_check_approximate"

// activeCheck is what APISIX's active health checks take over of Envoy's.
type activeCheck struct {
	kind string // http or tcp
	// timeout is in seconds, interval and unhealthyInterval in whole ones.
	timeout                     float64
	interval, unhealthyInterval int
	successes, failures         int
	// the following are of HTTP checks
	host, path    string
	headers       []string
	statuses      []int
	otherStatuses []int
	// statusFailures is failures of answers with otherStatuses.
	statusFailures int
	// port is where checks go; 0 is the endpoint's own.
	port int
}

// activeCheckOf returns nil where endpoints are not checked, or, with a reporter, in a way that APISIX
// does not have. report may be nil.
func activeCheckOf(c *clusterpb.Cluster, load *endpointpb.ClusterLoadAssignment, report reporter) *activeCheck {
	if len(c.GetHealthChecks()) == 0 {
		return nil
	}
	if report == nil {
		report = func(Code, string, ...any) {}
	}
	h := c.GetHealthChecks()[0] // Envoy has no more than one either
	const field = "health_checks[0]"
	interval := wholeSeconds(h.GetInterval())
	check := &activeCheck{
		kind:              "tcp",
		timeout:           max(seconds(positive(h.GetTimeout())), shortestTimeout.Seconds()),
		interval:          interval,
		unhealthyInterval: interval,
		successes:         int(min(max(valueOr(h.GetHealthyThreshold(), 1), 1), maxFailures)),
		failures:          int(min(max(valueOr(h.GetUnhealthyThreshold(), 1), 1), maxFailures)),
		port:              checkedPort(load, report),
	}
	if h.GetUnhealthyInterval() != nil {
		check.unhealthyInterval = wholeSeconds(h.GetUnhealthyInterval())
	}
	reportUnknown(h, report, field+".")
	ignored := func(name, what string) { report(codeSettingIgnored, field+"."+name, what) }
	switch {
	case h.GetHttpHealthCheck() != nil:
		check.ofHTTP(h.GetHttpHealthCheck(), report, field+".http_health_check.")
	case h.GetTcpHealthCheck() != nil:
		if tcp := h.GetTcpHealthCheck(); tcp.GetSend() != nil || len(tcp.GetReceive()) > 0 || tcp.GetProxyProtocolConfig() != nil {
			ignored("tcp_health_check", "what a TCP health check sends and receives")
		}
	case h.GetGrpcHealthCheck() != nil:
		ignored("grpc_health_check", "the call of a gRPC health check, instead of which a connection is opened,")
	default:
		ignored("custom_health_check", "a health check of another kind")
		return nil
	}
	return check
}

// wholeSeconds rounds up: APISIX counts seconds, and checks no more often than it was asked to.
func wholeSeconds(d *durationpb.Duration) int {
	return max(int(math.Ceil(positive(d).Seconds())), 1)
}

func (check *activeCheck) ofHTTP(h *corepb.HealthCheck_HttpHealthCheck, report reporter, field string) {
	reportUnknown(h, report, field)
	check.kind, check.path = "http", h.GetPath()
	switch {
	case isUpstreamHost(h.GetHost()):
		check.host = h.GetHost()
	case h.GetHost() != "":
		report(codeSettingIgnored, field+"host", "the host "+strconv.Quote(h.GetHost()))
	}
	switch h.GetMethod() {
	case corepb.RequestMethod_METHOD_UNSPECIFIED, corepb.RequestMethod_GET:
	default:
		report(codeSettingIgnored, field+"method", "the method, other than GET,")
	}
	for _, option := range h.GetRequestHeadersToAdd() {
		name, value := option.GetHeader().GetKey(), option.GetHeader().GetValue()
		if strings.Contains(value, "%") || strings.ContainsAny(name+value, "\r\n") {
			report(codeSettingIgnored, field+"request_headers_to_add", "the header "+strconv.Quote(name)+" of health checks")
			continue
		}
		check.headers = append(check.headers, name+": "+value)
	}
	expected := h.GetExpectedStatuses()
	if len(expected) == 0 {
		expected = []*typepb.Int64Range{{Start: 200, End: 201}}
	}
	for status := 200; status <= 599; status++ {
		if slices.ContainsFunc(expected, func(r *typepb.Int64Range) bool { return r.GetStart() <= int64(status) && int64(status) < r.GetEnd() }) {
			check.statuses = append(check.statuses, status)
		}
	}
	for _, status := range slices.Concat(successStatuses(), serverErrorStatuses()) {
		if !slices.Contains(check.statuses, status) {
			check.otherStatuses = append(check.otherStatuses, status)
		}
	}
	check.statusFailures = 1
	if len(h.GetRetriableStatuses()) > 0 { // which count as failures up to the threshold
		check.statusFailures = check.failures
	}
}

// checkedPort returns the port that all endpoints want to be checked at, if it is not that of requests.
func checkedPort(load *endpointpb.ClusterLoadAssignment, report reporter) int {
	ports := map[uint32]bool{}
	settings := false
	for _, locality := range load.GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			own := e.GetEndpoint().GetHealthCheckConfig()
			ports[own.GetPortValue()] = true
			settings = settings || own.GetAddress() != nil || own.GetHostname() != "" || own.GetDisableActiveHealthCheck()
		}
	}
	if len(ports) > 1 || settings {
		report(codeSettingIgnored, "load_assignment.endpoints.health_check_config", "what is particular to the checks of single endpoints")
	}
	if len(ports) != 1 {
		return 0
	}
	for port := range ports {
		if port <= math.MaxUint16 {
			return int(port)
		}
	}
	return 0
}

// render returns checks.active of an upstream.
func (check *activeCheck) render() map[string]any {
	healthy := map[string]any{"interval": check.interval, "successes": check.successes}
	unhealthy := map[string]any{"interval": check.unhealthyInterval, "tcp_failures": check.failures, "timeouts": check.failures}
	active := map[string]any{"type": check.kind, "timeout": check.timeout, "healthy": healthy, "unhealthy": unhealthy}
	if check.port != 0 {
		active["port"] = check.port
	}
	if check.kind != "http" {
		return active
	}
	active["http_path"] = check.path
	if check.host != "" {
		active["host"] = check.host
	}
	if len(check.headers) > 0 {
		active["req_headers"] = check.headers
	}
	unhealthy["http_failures"] = check.statusFailures
	if len(check.statuses) > 0 {
		healthy["http_statuses"] = check.statuses
	}
	if len(check.otherStatuses) > 0 {
		unhealthy["http_statuses"] = check.otherStatuses
	}
	return active
}

// checksOf returns the health checks of an upstream; nil where there are none. An active check that the
// cluster asks for also ends ejections.
func checksOf(c *clusterpb.Cluster, load *endpointpb.ClusterLoadAssignment) map[string]any {
	checks := outlierChecks(c)
	active := activeCheckOf(c, load, nil)
	switch {
	case active == nil:
		return checks
	case checks == nil:
		checks = map[string]any{}
	}
	checks["active"] = active.render()
	return checks
}

func reportHealthChecks(cx *clusterContext) {
	check := activeCheckOf(cx.cluster, cx.load, cx.report)
	if check == nil {
		return
	}
	how := "opening a connection"
	if check.kind == "http" {
		how = "requests for " + check.path
	}
	cx.report(codeHealthCheck, "health_checks", how, (time.Duration(check.interval) * time.Second).String())
}
