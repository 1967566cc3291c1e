package admin

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/xds"
)

func (s *Server) serveClusters(w http.ResponseWriter, r *http.Request) {
	world := s.config.World()
	var err error
	switch format := r.URL.Query().Get("format"); format {
	case "json":
		jsonHeader(w)
		out := &jsonWriter{w: w}
		out.text("{")
		if out.list("\n", "cluster_statuses", 1, s.clusterStatuses(world, out)) {
			out.text("\n")
		}
		out.text("}\n")
		err = out.err
	case "", "text":
		w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
		out := bufio.NewWriter(w)
		for c := range s.clusters(world) {
			writeCluster(out, c)
		}
		err = out.Flush()
	default:
		writeText(w, http.StatusBadRequest, fmt.Sprintf("format %q: want text or json\n", format))
	}
	if err != nil {
		s.config.Logger.WarnContext(r.Context(), "list of clusters is cut off", slog.Any("error", err))
	}
}

func (s *Server) clusterStatuses(world World, out *jsonWriter) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for c := range s.clusters(world) {
			if text, err := protoJSON().Marshal(c); out.fail(err) || !yield(text) {
				return
			}
		}
	}
}

// clusters yields the active clusters with their hosts.
func (s *Server) clusters(world World) iter.Seq[*adminpb.ClusterStatus] {
	return func(yield func(*adminpb.ClusterStatus) bool) {
		for r := range world.Active.All(xds.ClusterType) {
			c, err := xds.Decode[*clusterpb.Cluster](r)
			if err != nil {
				continue // it was decoded when it came
			}
			if !yield(s.clusterStatus(world.Active, c)) {
				return
			}
		}
	}
}

func (s *Server) clusterStatus(active *xds.Snapshot, c *clusterpb.Cluster) *adminpb.ClusterStatus {
	status := &adminpb.ClusterStatus{
		Name: c.GetName(), AddedViaApi: true, ObservabilityName: cmp.Or(c.GetAltStatName(), c.GetName()),
		CircuitBreakers: circuitBreakers(c),
	}
	assignment := c.GetLoadAssignment()
	if c.GetType() == clusterpb.Cluster_EDS {
		status.EdsServiceName = c.GetEdsClusterConfig().GetServiceName()
		assignment = nil
		if r := active.Get(xds.Key{Type: xds.EndpointType, Name: cmp.Or(status.GetEdsServiceName(), c.GetName())}); r != nil {
			if known, err := xds.Decode[*endpointpb.ClusterLoadAssignment](r); err == nil {
				assignment = known
			}
		}
	}
	named := c.GetType() == clusterpb.Cluster_STRICT_DNS || c.GetType() == clusterpb.Cluster_LOGICAL_DNS
	for _, l := range assignment.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			for _, address := range s.addresses(e.GetEndpoint().GetAddress(), named) {
				h := &adminpb.HostStatus{
					Address: address, Hostname: e.GetEndpoint().GetHostname(),
					Weight: max(e.GetLoadBalancingWeight().GetValue(), 1), Priority: l.GetPriority(), Locality: l.GetLocality(),
					HealthStatus: &adminpb.HostHealthStatus{EdsHealthStatus: health(e.GetHealthStatus())},
				}
				if name := e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress(); named {
					h.Hostname = cmp.Or(h.GetHostname(), name)
				}
				status.HostStatuses = append(status.HostStatuses, h)
			}
		}
	}
	return status
}

// addresses returns what a host is reached at: where it is known, what its name resolves to.
func (s *Server) addresses(address *corepb.Address, named bool) []*corepb.Address {
	if !named || s.config.Addresses == nil || address.GetSocketAddress() == nil {
		return []*corepb.Address{address}
	}
	ips := s.config.Addresses(address.GetSocketAddress().GetAddress())
	if len(ips) == 0 {
		return []*corepb.Address{address}
	}
	resolved := make([]*corepb.Address, 0, len(ips))
	for _, ip := range ips {
		a := proto.CloneOf(address)
		a.GetSocketAddress().Address = ip.String()
		resolved = append(resolved, a)
	}
	return resolved
}

// health is how Envoy shows what EDS says of a host.
func health(h corepb.HealthStatus) corepb.HealthStatus {
	switch h {
	case corepb.HealthStatus_UNKNOWN:
		return corepb.HealthStatus_HEALTHY
	case corepb.HealthStatus_TIMEOUT:
		return corepb.HealthStatus_UNHEALTHY
	default:
		return h
	}
}

// circuitBreakers are the limits of both priorities, with Envoy's defaults.
func circuitBreakers(c *clusterpb.Cluster) *clusterpb.CircuitBreakers {
	all := &clusterpb.CircuitBreakers{}
	for _, priority := range []corepb.RoutingPriority{corepb.RoutingPriority_DEFAULT, corepb.RoutingPriority_HIGH} {
		t := &clusterpb.CircuitBreakers_Thresholds{Priority: priority}
		for _, given := range c.GetCircuitBreakers().GetThresholds() {
			if given.GetPriority() == priority {
				t = given
				break
			}
		}
		all.Thresholds = append(all.Thresholds, t)
	}
	return all
}

// writeCluster writes the lines of the text format, of which other programs cut out columns at "::".
func writeCluster(w io.Writer, c *adminpb.ClusterStatus) {
	line := func(parts ...string) { fmt.Fprintf(w, "%s::%s\n", c.GetName(), strings.Join(parts, "::")) }
	line("observability_name", c.GetObservabilityName())
	const unlimited = 1024 // Envoy's default of connections and requests; of retries it is 3
	for i, t := range c.GetCircuitBreakers().GetThresholds() {
		priority := []string{"default_priority", "high_priority"}[i]
		for _, limit := range []struct {
			name string
			have *uint32
			def  uint32
		}{
			{"max_connections", value(t.GetMaxConnections()), unlimited},
			{"max_pending_requests", value(t.GetMaxPendingRequests()), unlimited},
			{"max_requests", value(t.GetMaxRequests()), unlimited},
			{"max_retries", value(t.GetMaxRetries()), 3},
		} {
			n := limit.def
			if limit.have != nil {
				n = *limit.have
			}
			line(priority, limit.name, strconv.FormatUint(uint64(n), 10))
		}
	}
	line("added_via_api", strconv.FormatBool(c.GetAddedViaApi()))
	if name := c.GetEdsServiceName(); name != "" {
		line("eds_service_name", name)
	}
	for _, h := range c.GetHostStatuses() {
		address := hostAddress(h.GetAddress())
		line(address, "hostname", h.GetHostname())
		line(address, "health_flags", healthFlags(h.GetHealthStatus().GetEdsHealthStatus()))
		line(address, "weight", strconv.FormatUint(uint64(h.GetWeight()), 10))
		line(address, "region", h.GetLocality().GetRegion())
		line(address, "zone", h.GetLocality().GetZone())
		line(address, "sub_zone", h.GetLocality().GetSubZone())
		line(address, "priority", strconv.FormatUint(uint64(h.GetPriority()), 10))
	}
}

func value(v interface{ GetValue() uint32 }) *uint32 {
	if m, ok := v.(proto.Message); !ok || !m.ProtoReflect().IsValid() {
		return nil
	}
	n := v.GetValue()
	return &n
}

func healthFlags(h corepb.HealthStatus) string {
	switch h {
	case corepb.HealthStatus_UNHEALTHY, corepb.HealthStatus_TIMEOUT:
		return "/failed_eds_health"
	case corepb.HealthStatus_DEGRADED:
		return "/degraded_eds_health"
	case corepb.HealthStatus_DRAINING:
		return "/eds_status_draining"
	default:
		return "healthy"
	}
}

// hostAddress is how Envoy writes an address.
func hostAddress(a *corepb.Address) string {
	switch kind := a.GetAddress().(type) {
	case *corepb.Address_SocketAddress:
		return net.JoinHostPort(kind.SocketAddress.GetAddress(), strconv.FormatUint(uint64(kind.SocketAddress.GetPortValue()), 10))
	case *corepb.Address_Pipe:
		return kind.Pipe.GetPath()
	case *corepb.Address_EnvoyInternalAddress:
		return "envoy://" + kind.EnvoyInternalAddress.GetServerListenerName() + "/" + kind.EnvoyInternalAddress.GetEndpointId()
	default:
		return ""
	}
}
