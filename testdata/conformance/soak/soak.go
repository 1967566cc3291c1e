package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Storms, and the calm that follows each.
const (
	stormLength = 15 * time.Second
	calmLength  = 8 * time.Second // what is set aside for calm at the end
)

// Where istiod is.
const (
	istiodHTTP   = "127.0.0.1:15014"
	istiodPlain  = ":15010"
	istiodSecure = ":15012"
	loopback     = "127.0.0.1"
	firstLink    = 21000
)

// The network of bridges that are started to compare with.
const (
	freshNetwork  = "fresh"
	freshAddress  = "10.99.0.2"
	besideAddress = "10.99.0.1"
)

// programs are the paths of what is run.
type programs struct {
	// Skewed is the bridge with a clock that can be set; empty leaves the clocks alone.
	Bridge, Skewed, Istiod, Standin string
}

// soak is the mesh, and what is known of it. The goroutine that calls run owns what is not guarded.
type soak struct {
	programs

	dir, disk string // disk is a small file system for the states
	random    *rand.Rand
	line      *timeline
	mesh      *mesh
	tokens    *tokens

	istiod               *process
	edge, inner, witness *gateway
	gateways             []*gateway
	clocks               []*clock
	breakages            []breakage
	usage                map[*gateway]usage // of the bridges in the first calm
}

// newSoak makes everything but processes. It wants namespaces of mounts, processes and the network of its
// own; authorities is the directory with the files of istiod's certificate authority.
func newSoak(dir string, p programs, seed uint64, line *timeline, authorities string) (*soak, error) {
	s := &soak{
		programs: p, dir: dir, line: line, disk: filepath.Join(dir, "disk"), usage: map[*gateway]usage{},
		random: rand.New(rand.NewPCG(seed, 0)),
	}
	for _, name := range []string{"disk", "mesh", "tokens"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return nil, err
		}
	}
	if err := syscall.Mount("none", s.disk, "tmpfs", 0, "size=512k"); err != nil {
		return nil, fmt.Errorf("a small file system: %w", err)
	}
	if err := network(); err != nil {
		return nil, err
	}
	var err error
	if s.mesh, err = newMesh(filepath.Join(dir, "mesh"), s.random); err != nil {
		return nil, err
	}
	s.tokens = &tokens{dir: filepath.Join(dir, "tokens"), accepted: filepath.Join(dir, "accepted-tokens")}
	if err := errors.Join(s.tokens.project(), s.tokens.accept(s.tokens.serial)); err != nil {
		return nil, err
	}
	s.istiod = &process{
		name: "istiod", path: p.Istiod, output: filepath.Join(dir, "istiod.log"), environment: []string{"ROOT_CA_DIR=" + authorities},
		args: []string{
			"--mode", "bootstrap", "--dir", s.mesh.dir, "--grpc", istiodPlain, "--http", istiodHTTP, "--secure", istiodSecure,
			"--token-file", s.tokens.accepted, "--root-cert-out", s.root(),
		},
	}
	return s, s.addGateways()
}

func (s *soak) root() string { return filepath.Join(s.dir, "root-cert.pem") }

// network makes a second network beside this one.
func network() error {
	for _, line := range []string{
		"ip link set lo up",
		"mkdir -p /run/netns",
		"mount -t tmpfs none /run/netns", // nothing of this is for others to see
		"ip netns add " + freshNetwork,
		"ip -n " + freshNetwork + " link set lo up",
		"ip link add beside type veth peer name eth0 netns " + freshNetwork,
		"ip addr add " + besideAddress + "/24 dev beside",
		"ip link set beside up",
		"ip -n " + freshNetwork + " addr add " + freshAddress + "/24 dev eth0",
		"ip -n " + freshNetwork + " link set eth0 up",
	} {
		args := strings.Fields(line)
		if output, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, output)
		}
	}
	return nil
}

// addGateways describes them: edge, where APISIX itself is what clients connect to; inner, with capture in
// front of it, TCP, mutual TLS to pods, and a last good state; and witness, which nobody connects to and which is not broken,
// so that it grows as old as the test.
func (s *soak) addGateways() error {
	s.edge, s.inner, s.witness = newGateway(0, "edge", s.line), newGateway(1, "inner", s.line), newGateway(2, "witness", s.line)
	s.gateways = []*gateway{s.edge, s.inner, s.witness}
	node := func(name, address, label string) []string {
		return []string{
			"--node-id", "router~" + address + "~" + name + "-0.default~default.svc.cluster.local",
			"--node-metadata", fmt.Sprintf(`{"LABELS":{"istio":%q},"SERVICE_ACCOUNT":%q,"CLUSTER_ID":"Kubernetes"}`, label, label),
		}
	}
	s.edge.flags = append(node("edge", "127.1.0.1", "edge"), "--profile", "gateway")
	s.witness.flags = append(node("witness", "127.1.0.2", "edge"), "--profile", "gateway")
	s.inner.flags = append(node("inner", "127.1.0.3", "inner"), "--profile", "mesh", "--capture-dns", "off", "--drain-time", "1s",
		"--apisix-stream-ports", "16000-16031", "--last-good-state", lastGood, "--xds-server-name", "istiod.istio-system.svc",
		"--xds-root-cert", s.root(), "--xds-token-file", s.tokens.file())
	s.inner.secure = true

	s.edge.apisix = s.standin(s.edge, "--plain", "--http", fmt.Sprintf("%s:%d", loopback, edgePort))
	s.edge.doors = []string{fmt.Sprintf("%s:%d", loopback, edgePort)}
	s.inner.apisix = s.standin(s.inner, "--last-stream-port", "16031")
	s.inner.doors = []string{loopback + ":15480", loopback + ":16031"}
	for range 2 {
		s.edge.clients = append(s.edge.clients, newClient(&s.edge.side, edgePort, s.mesh, s.line))
		s.inner.clients = append(s.inner.clients, newClient(&s.inner.side, innerPort, s.mesh, s.line))
	}
	for n, g := range s.gateways {
		scheme, port := "grpc://", istiodPlain
		if g.secure {
			scheme, port = "grpcs://", istiodSecure
		}
		at := fmt.Sprintf("%s:%d", loopback, firstLink+n)
		var err error
		if g.link, err = newLink(at, loopback+port); err != nil {
			return err
		}
		g.stateDir = filepath.Join(s.disk, g.name)
		g.bridge = &process{
			name: g.name, path: s.Bridge, output: filepath.Join(s.dir, g.name+".log"),
			args: g.arguments(scheme+at, g.etcd, g.admin, g.status, g.metrics, g.stateDir), environment: g.environment(),
		}
	}
	if s.Skewed == "" {
		return nil
	}
	for _, of := range [][]*gateway{{s.edge}, {s.inner}, {s.witness}} {
		c, err := newClock(filepath.Join(s.dir, of[0].name+".clock"))
		if err != nil {
			return err
		}
		s.clocks = append(s.clocks, c)
		for _, g := range of {
			g.clock = c
			g.bridge.path = s.Skewed
			g.bridge.environment = append(g.bridge.environment, c.environment())
		}
	}
	return nil
}

func (s *soak) standin(g *gateway, flags ...string) *process {
	return &process{
		name: "apisix-" + g.name, path: s.Standin, output: filepath.Join(s.dir, "apisix-"+g.name+".log"),
		args: append([]string{"--etcd", "http://" + g.etcd, "--debug", g.debug}, flags...),
	}
}

// run soaks for a while. Faults are in the timeline; an error is the test's own.
func (s *soak) run(ctx context.Context, length time.Duration, seed uint64) (err error) {
	defer s.stopAll()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, inner := errgroup.WithContext(ctx)
	defer func() {
		cancel()
		err = errors.Join(err, group.Wait())
	}()
	for _, g := range s.gateways {
		group.Go(func() error { return g.link.run(inner) })
	}
	until := time.Now().Add(length)
	if err := s.startAll(ctx); err != nil {
		return err
	}
	s.sendTraffic(inner, group, seed)
	s.breakages = s.listBreakages()
	for n := 1; ctx.Err() == nil; n++ {
		wait(ctx, time.Second)
		s.check(ctx)
		if s.line.failed() > 0 || time.Now().After(until) {
			break
		}
		s.line.note("storm %d", n)
		s.rage(ctx, min(stormLength, max(time.Until(until)-calmLength, stormLength/3)))
	}
	for _, g := range s.gateways {
		for _, c := range g.clients {
			s.line.note("%s", c)
		}
	}
	return ctx.Err()
}

// sendTraffic starts the clients of APISIX and of the etcd ports.
func (s *soak) sendTraffic(ctx context.Context, group *errgroup.Group, seed uint64) {
	stream := uint64(0)
	random := func() *rand.Rand {
		stream++
		return rand.New(rand.NewPCG(seed, stream))
	}
	for _, g := range s.gateways {
		group.Go(func() error { g.observer.run(ctx); return nil })
		for i, c := range g.clients {
			of := random()
			group.Go(func() error { c.run(ctx, of); return nil })
			if g.secure && i == 0 {
				of := random()
				group.Go(func() error { c.runTCP(ctx, of); return nil })
			}
		}
	}
}

func (s *soak) startAll(ctx context.Context) error {
	if err := s.istiod.start(); err != nil {
		return err
	}
	if err := eventually(ctx, patience, func(ctx context.Context) error {
		_, err := get(ctx, "http://"+istiodHTTP+"/ready")
		if _, missing := os.Stat(s.root()); missing != nil {
			err = errors.Join(err, missing)
		}
		return err
	}); err != nil {
		return fmt.Errorf("istiod: %w: %s", err, s.istiod.tail())
	}
	for _, g := range s.gateways {
		if err := g.bridge.start(); err != nil {
			return err
		}
		if g.apisix != nil {
			if err := g.apisix.start(); err != nil {
				return err
			}
		}
	}
	for _, g := range s.gateways {
		if err := eventually(ctx, patience, func(ctx context.Context) error {
			return errors.Join(g.ready(ctx), g.connected(ctx), g.serves(ctx))
		}); err != nil {
			return fmt.Errorf("%s: %w: %s", g.name, err, g.bridge.tail())
		}
	}
	return nil
}

// stopAll ends what runs, as one would on purpose.
func (s *soak) stopAll() {
	for _, g := range s.gateways {
		for _, p := range []*process{g.bridge, g.apisix} {
			if p == nil || p.cmd == nil || !p.running() {
				continue
			}
			if err := p.terminate(); err != nil {
				s.line.fail("end", "%v: %s", err, p.tail())
			}
		}
	}
	if s.istiod.cmd != nil && s.istiod.running() {
		_ = s.istiod.terminate()
	}
	for _, c := range s.clocks {
		_ = c.close()
	}
}

// fresh returns the objects of a bridge that has just been started for a gateway, and has seen nothing of
// what came before. The numbers that were given out are those of the gateway.
func (s *soak) fresh(ctx context.Context, g *gateway) (objects map[string]string, err error) {
	state, err := os.MkdirTemp(s.dir, "fresh")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	numbers, err := os.ReadFile(filepath.Join(g.stateDir, "allocations.jsonl"))
	if err == nil {
		err = os.WriteFile(filepath.Join(state, "allocations.jsonl"), numbers, 0o600)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	xds := "grpc://" + besideAddress + istiodPlain
	if g.secure {
		xds = "grpcs://" + besideAddress + istiodSecure
	}
	etcd := freshAddress + ":2379"
	args := g.arguments(xds, etcd, "off", "off", "off", state)
	p := &process{
		name: "fresh", path: "/sbin/ip", output: filepath.Join(s.dir, "fresh-"+g.name+".log"), environment: g.environment(),
		args: append([]string{"netns", "exec", freshNetwork, s.Bridge}, args...),
	}
	if err := p.start(); err != nil {
		return nil, err
	}
	defer p.kill()
	err = eventually(ctx, patience, func(ctx context.Context) error {
		if !p.running() {
			return errors.New("it ended")
		}
		objects, err = readObjects(ctx, etcd)
		return err
	})
	if err != nil {
		err = fmt.Errorf("%w: %s", err, p.tail())
	}
	return objects, err
}
