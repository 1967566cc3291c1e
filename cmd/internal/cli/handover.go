package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/bridge"
)

// handoverOptions say whether another process may take over.
type handoverOptions struct{ path string }

func (o *handoverOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.path, "handover", bridge.Off, "Unix `socket|off`, below --state-dir unless it is absolute, at which the next process on this host takes\n"+
		"over the listening sockets and the watchers of this one, which then ends (mode standalone)")
}

// config returns an empty path where nobody may.
func (o *handoverOptions) config(stateDir, mode string) (string, error) {
	switch {
	case o.path == "" || o.path == bridge.Off:
		return "", nil
	case mode != "standalone":
		return "", fmt.Errorf("--handover: APISIX belongs to the process that started it: in mode %s, replace the pod", mode)
	case filepath.IsAbs(o.path):
		return o.path, nil
	case stateDir == "":
		return "", fmt.Errorf("--handover %s: give --state-dir, or an absolute path", o.path)
	}
	return filepath.Join(stateDir, o.path), nil
}
