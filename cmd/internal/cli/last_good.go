package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/bridge"
	"meshbridge/cmd/internal/lastgood"
)

// lastGoodOptions say whether there is something to serve while istiod is away.
type lastGoodOptions struct {
	path          string
	after, maxAge time.Duration
	keys          bool
}

func (o *lastGoodOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.path, "last-good-state", bridge.Off, "`file|off`, below --state-dir unless it is absolute: keeps what istiod sent, to be served by a bridge that\n"+
		"starts while istiod is away. Off by default: endpoints move, and policies change, while nobody tells")
	f.DurationVar(&o.after, "last-good-after", 2*time.Second, "`duration` that istiod has to send a complete configuration before the last good state is served")
	f.DurationVar(&o.maxAge, "last-good-max-age", 24*time.Hour, "`duration` for which the last good state may be served after it was last current; 0 is for ever")
	f.BoolVar(&o.keys, "last-good-keys", false, "keep the private keys of gateways, too, unencrypted; without, an APISIX that runs already goes on with what it has instead")
}

// config returns nil where nothing is kept.
func (o *lastGoodOptions) config(stateDir string, node *corepb.Node) (*lastgood.Config, error) {
	if o.path == "" || o.path == bridge.Off {
		return nil, nil //nolint:nilnil // nil is what bridge.Config calls off
	}
	path := o.path
	switch {
	case filepath.IsAbs(path):
	case stateDir == "":
		return nil, fmt.Errorf("--last-good-state %s: give --state-dir, or an absolute path", path)
	default:
		path = filepath.Join(stateDir, path)
	}
	if o.after < 0 || o.maxAge < 0 {
		return nil, errors.New("--last-good-after, --last-good-max-age: may not be negative")
	}
	return &lastgood.Config{
		Path: path, After: o.after, MaxAge: o.maxAge, Keys: o.keys,
		Identity: lastgood.Identity{Node: node.GetId(), Cluster: node.GetMetadata().GetFields()["CLUSTER_ID"].GetStringValue()},
	}, nil
}
