package cli

import (
	"fmt"

	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/bridge"
)

// requestMetricsOptions say which requests and connections are counted.
type requestMetricsOptions struct{ metrics string }

func (o *requestMetricsOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.metrics, "request-metrics", string(bridge.RequestMetricsAuto), "count requests and connections in Istio's metrics: `auto|on|off`;\n"+
		"auto: those for which istiod asks, by the Telemetry API")
}

func (o *requestMetricsOptions) config() (bridge.RequestMetrics, error) {
	metrics, err := bridge.ParseRequestMetrics(o.metrics)
	if err != nil {
		return "", fmt.Errorf("--request-metrics: %w", err)
	}
	return metrics, nil
}
