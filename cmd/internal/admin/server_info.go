package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/cmd/internal/logscope"
	"meshbridge/xds"
)

// state is Envoy's word for how far the process is.
func (s *Server) state() adminpb.ServerInfo_State {
	switch {
	case s.Failed(), s.config.Draining != nil && s.config.Draining():
		return adminpb.ServerInfo_DRAINING
	case s.config.Ready():
		return adminpb.ServerInfo_LIVE
	case s.config.World().Received == nil:
		return adminpb.ServerInfo_PRE_INITIALIZING
	default:
		return adminpb.ServerInfo_INITIALIZING
	}
}

func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	state := s.state()
	status := http.StatusServiceUnavailable
	if state == adminpb.ServerInfo_LIVE {
		status = http.StatusOK
	}
	writeText(w, status, state.String()+"\n")
}

func (s *Server) serveInfo(w http.ResponseWriter, _ *http.Request) {
	uptime := durationpb.New(time.Since(s.started).Truncate(time.Second))
	writeMessage(w, &adminpb.ServerInfo{
		Version: s.buildVersion(), State: s.state(),
		UptimeCurrentEpoch: uptime, UptimeAllEpochs: uptime,
		HotRestartVersion: "disabled", CommandLineOptions: s.commandLine(), Node: s.node(),
	})
}

// buildVersion has the form that Envoy's has: revision/version/state of the sources/kind of build/TLS.
func (s *Server) buildVersion() string {
	revision, state := "unknown", "Clean"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			switch {
			case setting.Key == "vcs.revision":
				revision = setting.Value
			case setting.Key == "vcs.modified" && setting.Value == "true":
				state = "Modified"
			}
		}
	}
	return strings.Join([]string{revision, cmp.Or(s.config.Version, "unknown"), state, "RELEASE", "crypto-tls"}, "/")
}

func (s *Server) commandLine() *adminpb.CommandLineOptions {
	o := &adminpb.CommandLineOptions{
		Concurrency: uint32(runtime.GOMAXPROCS(0)), Mode: adminpb.CommandLineOptions_Serve, DisableHotRestart: true,
		ServiceCluster: s.config.Node.GetCluster(), ServiceNode: s.config.Node.GetId(), ServiceZone: s.config.Node.GetLocality().GetZone(),
		DrainTime: durationpb.New(s.config.DrainTime),
	}
	if levels := s.config.Levels; levels != nil {
		o.LogLevel = logscope.LevelName(levels.Get(logscope.Bridge))
		var others []string
		for _, scope := range logscope.Names() {
			others = append(others, scope+":"+logscope.LevelName(levels.Get(scope)))
		}
		o.ComponentLogLevel = strings.Join(others, ",")
	}
	return o
}

// node is what istiod is told, with the version in the form that istioctl shows: ours as a number, and
// the APISIX that is translated for as its label.
func (s *Server) node() *corepb.Node {
	n := &corepb.Node{UserAgentName: "meshbridge"}
	if s.config.Node != nil {
		n = proto.CloneOf(s.config.Node)
	}
	version := &typepb.SemanticVersion{}
	// What is no number stays zero: a build that is no release.
	_, _ = fmt.Sscanf(strings.TrimPrefix(s.config.Version, "v"), "%d.%d.%d", &version.MajorNumber, &version.MinorNumber, &version.Patch)
	n.UserAgentVersionType = &corepb.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corepb.BuildVersion{
		Version: version,
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"build.label": structpb.NewStringValue("apisix/" + s.config.APISIX),
			"build.type":  structpb.NewStringValue(cmp.Or(s.config.Version, "unknown")),
		}},
	}}
	return n
}

// bootstrap is what an Envoy in our place would have been started with.
func (s *Server) bootstrap() *adminpb.BootstrapConfigDump {
	b := &bootstrappb.Bootstrap{Node: s.node()}
	if s.config.Istiod != "" {
		source := &corepb.ConfigSource{
			ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}},
			ResourceApiVersion:    corepb.ApiVersion_V3,
		}
		b.DynamicResources = &bootstrappb.Bootstrap_DynamicResources{
			LdsConfig: source, CdsConfig: source,
			AdsConfig: &corepb.ApiConfigSource{
				ApiType: corepb.ApiConfigSource_DELTA_GRPC, TransportApiVersion: corepb.ApiVersion_V3,
				GrpcServices: []*corepb.GrpcService{{TargetSpecifier: &corepb.GrpcService_GoogleGrpc_{
					GoogleGrpc: &corepb.GrpcService_GoogleGrpc{TargetUri: s.config.Istiod, StatPrefix: "istiod"},
				}}},
			},
		}
	}
	return &adminpb.BootstrapConfigDump{Bootstrap: b, LastUpdated: timestamp(s.started)}
}

// serveInitDump lists what has been asked for and not been answered yet.
func (s *Server) serveInitDump(w http.ResponseWriter, r *http.Request) {
	wanted := r.URL.Query().Get("mask")
	targets := map[string][]string{}
	for _, key := range s.config.World().Pending {
		kind := strings.ToLower(xds.ShortType(key.Type))
		if wanted == "" || kind == wanted {
			targets[kind] = append(targets[kind], cmp.Or(key.Name, "*"))
		}
	}
	all := &adminpb.UnreadyTargetsDumps{}
	for kind, names := range targets {
		all.UnreadyTargetsDumps = append(all.UnreadyTargetsDumps, &adminpb.UnreadyTargetsDumps_UnreadyTargetsDump{Name: kind, TargetNames: names})
	}
	slices.SortFunc(all.GetUnreadyTargetsDumps(), func(a, b *adminpb.UnreadyTargetsDumps_UnreadyTargetsDump) int {
		return strings.Compare(a.GetName(), b.GetName())
	})
	writeMessage(w, all)
}

// serveMemory gives Go's numbers under the names that Envoy has for those of its allocator.
func serveMemory(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	writeMessage(w, &adminpb.Memory{
		Allocated: m.HeapAlloc, HeapSize: m.HeapSys,
		PageheapUnmapped: m.HeapReleased, PageheapFree: m.HeapIdle - min(m.HeapReleased, m.HeapIdle),
		TotalThreadCache: m.MCacheInuse, TotalPhysicalBytes: m.Sys - min(m.HeapReleased, m.Sys),
	})
}

func serveRuntime(w http.ResponseWriter, _ *http.Request) {
	jsonHeader(w)
	(&jsonWriter{w: w}).text("{\n \"layers\": [],\n \"entries\": {}\n}\n")
}

func serveContention(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusNotFound, "Mutex contention is not measured here; /debug/pprof/mutex is the profile of it.\n")
}

func (s *Server) serveHealth(failed bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.failed.Store(failed)
		serveOK(w, r)
	}
}

func (s *Server) serveDrain(w http.ResponseWriter, r *http.Request) {
	s.config.Drain()
	serveOK(w, r)
}

func (s *Server) serveQuit(w http.ResponseWriter, r *http.Request) {
	serveOK(w, r)
	s.config.Quit()
}

func (s *Server) serveHelp(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusOK, s.help())
}

func (s *Server) help() string {
	var b strings.Builder
	b.WriteString("admin commands are:\n")
	width := 0
	for _, e := range s.endpoints() {
		width = max(width, len(e.path))
	}
	for _, e := range s.endpoints() {
		method := ""
		if e.mutates {
			method = " (POST)"
		}
		fmt.Fprintf(&b, "  %-*s  %s%s\n", width, e.path, e.help, method)
	}
	for _, own := range [][2]string{
		{"/explain", "what becomes of a request (POST); see meshbridge explain"},
		{"/diagnostics", "what differs from Envoy, and why"},
		{"/version", "the version"},
		{"/", "the status page, for browsers; /api/v1/now and others have the same as JSON"},
		{"/debug/pprof/", "profiles of this process"},
	} {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, own[0], own[1])
	}
	return b.String()
}
