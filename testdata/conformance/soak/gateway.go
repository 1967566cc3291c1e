package soak

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// gateway is a bridge, with what stands for APISIX behind it, and the clients that come to it.
type gateway struct {
	side

	bridge *process
	apisix *process // nil where nobody comes to it
	link   *link    // to istiod
	clock  *clock

	etcd, admin, status, metrics string
	debug                        string   // of apisix
	doors                        []string // where APISIX listens once it serves
	stateDir                     string
	secure                       bool // it has an identity, and needs its clock for that
	flags                        []string
	observer                     *observer
	clients                      []*client
}

// lastGood is the file of the last good state, below the state directory.
const lastGood = "last-good"

// Ports of the gateways: the first of a range for each.
const (
	firstBridgePort = 20000
	bridgePorts     = 10
)

func newGateway(n int, name string, l *timeline) *gateway {
	at := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", firstBridgePort+n*bridgePorts+port) }
	g := &gateway{
		side: side{name: name, current: newHealth(), path: newHealth(), old: newHealth()},
		etcd: at(0), admin: at(1), status: at(2), metrics: at(3), debug: at(4),
	}
	g.observer = newObserver(name, g.etcd, l)
	return g
}

// arguments are those of the bridge, at these addresses.
func (g *gateway) arguments(xds, etcd, admin, status, metrics, state string) []string {
	return append([]string{
		"run", "--xds", xds, "--listen", etcd, "--admin", admin, "--status", status, "--metrics", metrics,
		"--internal", "127.0.0.1:0", "--state-dir", state, "--log-format", "json", "--insecure-listen",
	}, g.flags...)
}

func (g *gateway) environment() []string { return []string{"SECRET_TTL=" + identityLife.String()} }

// ready returns why the bridge is not.
func (g *gateway) ready(ctx context.Context) error {
	_, err := get(ctx, "http://"+g.status+"/healthz/ready")
	return err
}

// connected returns why the bridge does not follow istiod, or has no identity where it needs one.
func (g *gateway) connected(ctx context.Context) error {
	text, err := get(ctx, "http://"+g.metrics+"/metrics")
	if err != nil {
		return err
	}
	if value(text, "meshbridge_xds_connected") != 1 || value(text, "meshbridge_world_stale") != 0 {
		return errors.New("it does not have the configuration of istiod")
	}
	if g.secure {
		if left := value(text, "meshbridge_identity_expiry_timestamp_seconds") - float64(time.Now().Unix()); left < 1 || left > 2*identityLife.Seconds() {
			return fmt.Errorf("the identity is valid for %.0f s", left)
		}
	}
	return nil
}

// stale tells whether the bridge serves its last good state, or cannot say.
func (g *gateway) stale(ctx context.Context) bool {
	text, err := get(ctx, "http://"+g.metrics+"/metrics")
	return err != nil || value(text, "meshbridge_world_stale") != 0
}

// value returns that of a metric without labels; 0 where there is none.
func value(metrics, name string) (v float64) {
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			_, _ = fmt.Sscan(rest, &v)
		}
	}
	return v
}

// serves returns why APISIX does not.
func (g *gateway) serves(ctx context.Context) error {
	for _, door := range g.doors {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", door)
		if err != nil {
			return err
		}
		_ = conn.Close()
	}
	return nil
}

// leftovers returns the files of the state that should not be there.
func (g *gateway) leftovers() ([]string, error) {
	entries, err := os.ReadDir(g.stateDir)
	var strange []string
	for _, e := range entries {
		switch e.Name() {
		case "revision.json", "allocations.jsonl", lastGood:
		default:
			strange = append(strange, filepath.Join(g.stateDir, e.Name()))
		}
	}
	return strange, err
}
