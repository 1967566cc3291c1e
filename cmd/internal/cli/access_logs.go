package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/accesslog"
)

// accessLogOptions say whether the bridge writes access logs, and which.
type accessLogOptions struct{ mode, files string }

func (o *accessLogOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.mode, "access-logs", "on", "write the access logs that APISIX cannot: those to services (gRPC, OpenTelemetry) and of TCP connections: `on|off`")
	f.StringVar(&o.files, "access-log-files", "apisix", "who writes access logs of requests to files: `apisix|bridge`;\n"+
		"apisix: its plugin file-logger, in JSON; bridge: exactly Envoy's text or JSON, as with\n"+
		"  meshbridge run --access-log-files bridge")
}

// config returns nil where none are written.
func (o *accessLogOptions) config(stdout, stderr io.Writer) (*accesslog.Config, error) {
	switch o.mode {
	case "on":
		return &accesslog.Config{Stdout: stdout, Stderr: stderr}, nil
	case "off":
		return nil, nil //nolint:nilnil // nil is what bridge.Config calls none
	}
	return nil, fmt.Errorf("--access-logs: %q: want on or off", o.mode)
}

// byBridge tells whether the bridge writes those to files, too.
func (o *accessLogOptions) byBridge() (bool, error) {
	switch {
	case o.files == "apisix":
		return false, nil
	case o.files != "bridge":
		return false, fmt.Errorf("--access-log-files: %q: want apisix or bridge", o.files)
	case o.mode == "off":
		return false, errors.New("--access-log-files bridge: needs --access-logs on")
	}
	return true, nil
}
