package translate

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	statspb "istio.io/api/envoy/extensions/stats"
)

func TestStatsAreThoseOfTheFilter(t *testing.T) {
	for name, c := range map[string]struct {
		config    *statspb.PluginConfig
		direction Direction
		want      *Stats
		reported  []Code
	}{
		"a client": {&statspb.PluginConfig{}, Outbound, &Stats{Reporter: "source", ReportEvery: defaultStatsReport}, nil},
		"a server": {
			&statspb.PluginConfig{DisableHostHeaderFallback: true, TcpReportingDuration: durationpb.New(0)}, Inbound,
			&Stats{Reporter: "destination", NoHostFallback: true}, nil,
		},
		"a gateway reports as a client": {&statspb.PluginConfig{}, Edge, &Stats{Reporter: "source", ReportEvery: defaultStatsReport}, nil},
		"a waypoint":                    {&statspb.PluginConfig{Reporter: statspb.Reporter_SERVER_GATEWAY}, Inbound, &Stats{Reporter: "waypoint", ReportEvery: defaultStatsReport}, nil},
		"series that expire": {
			&statspb.PluginConfig{RotationInterval: durationpb.New(3600e9)}, Outbound,
			&Stats{Reporter: "source", ReportEvery: defaultStatsReport, Rotation: 3600e9, Grace: defaultStatsGrace}, nil,
		},
		"labels": {
			&statspb.PluginConfig{Metrics: []*statspb.MetricConfig{
				{Name: "requests_total", Dimensions: map[string]string{"a": `"b"`, "n": "7", "m": `node.metadata.LABELS["app"]`, "x": "request.host", "y": "node.metadata[0]"}},
				{Name: "requests_total", TagsToRemove: []string{"source_app"}},
				{Name: "response_bytes", Drop: true},
				{Name: "custom"},
			}},
			Outbound,
			&Stats{Reporter: "source", ReportEvery: defaultStatsReport, Metrics: map[string]MetricStats{
				"requests_total": {
					Remove: []string{"source_app"},
					Set:    map[string]StatsLabel{"a": {Text: "b", Known: true}, "n": {Text: "7", Known: true}, "m": {Node: []string{"LABELS", "app"}}, "x": {}, "y": {}},
				},
				"response_bytes": {Drop: true},
			}},
			[]Code{codeStatsLabel, codeStatsLabel, codeStatsCustom},
		},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := anypb.New(c.config)
			if err != nil {
				t.Fatal(err)
			}
			var reported []Code
			got := statsOf(config, c.direction, func(code Code, _ string, _ ...any) { reported = append(reported, code) })
			if diff := gocmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := gocmp.Diff(c.reported, reported); diff != "" {
				t.Errorf("reported (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAMetricOverrideWithoutANameIsForAllMetrics(t *testing.T) {
	config, err := anypb.New(&statspb.PluginConfig{Metrics: []*statspb.MetricConfig{{TagsToRemove: []string{"source_app"}}}})
	if err != nil {
		t.Fatal(err)
	}
	s := statsOf(config, Outbound, func(Code, string, ...any) {})
	for _, name := range statsMetrics {
		if len(s.Metrics[name].Remove) != 1 {
			t.Errorf("%s has it still", name)
		}
	}
}
