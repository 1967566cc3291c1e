package cli

import (
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/accesslog"
)

// accessLogOptions say whether the bridge writes access logs.
type accessLogOptions struct{ mode string }

func (o *accessLogOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.mode, "access-logs", "on", "write the access logs that APISIX cannot: those to services (gRPC, OpenTelemetry) and of TCP connections: `on|off`")
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
