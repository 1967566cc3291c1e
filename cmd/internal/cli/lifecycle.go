package cli

import (
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/bridge"
	"meshbridge/xds"
)

// lifecycleOptions say how the bridge ends.
type lifecycleOptions struct {
	drainTime, minimumDrain, stopTime time.Duration
	exitOnZero                        bool
}

func (o *lifecycleOptions) add(f *pflag.FlagSet) {
	f.DurationVar(&o.drainTime, "drain-time", 5*time.Second, "`duration` for which connections are served after SIGTERM, while others learn that this\n"+
		"pod ends (profile mesh and mode sidecar); PROXY_CONFIG's terminationDrainDuration is the default where it is set")
	f.BoolVar(&o.exitOnZero, "exit-on-zero-connections", false, "after SIGTERM, end when no connection is open instead of after --drain-time;\ndefault: $EXIT_ON_ZERO_ACTIVE_CONNECTIONS")
	f.DurationVar(&o.minimumDrain, "minimum-drain-time", 5*time.Second, "least `duration` of that; default: $MINIMUM_DRAIN_DURATION")
	f.DurationVar(&o.stopTime, "apisix-stop-time", 5*time.Second, "`duration` that requests in flight have when APISIX is stopped in the end; then it is killed")
}

func (o *lifecycleOptions) config(hurry <-chan struct{}) bridge.LifecycleConfig {
	return bridge.LifecycleConfig{
		DrainTime: o.drainTime, ExitOnZero: o.exitOnZero, MinimumDrain: o.minimumDrain, StopTime: o.stopTime, Hurry: hurry,
	}
}

// podDefaults are flags of run that Istio's variables set, below everything else.
func podDefaults(a *app, node xds.NodeConfig) map[string]string {
	values := map[string]string{}
	for flag, name := range map[string]string{
		"exit-on-zero-connections": "EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "minimum-drain-time": "MINIMUM_DRAIN_DURATION",
	} {
		if value := a.getenv(name); value != "" {
			values[flag] = value
		}
	}
	if c := node.ProxyConfig; c != nil {
		if port := c.GetStatusPort(); port > 0 {
			values["metrics"] = ":" + strconv.Itoa(int(port))
		}
		if d := c.GetTerminationDrainDuration(); d != nil {
			values["drain-time"] = d.AsDuration().String()
		}
	}
	return values
}
