// Command capture records what istiod sends to a proxy: it regenerates
// testdata/istiod/<scenario>/xds from the manifests in testdata/istio, for the
// proxy that the scenario's node.json describes.
//
//	make capture                            every scenario
//	make capture SCENARIO=bookinfo-client   one of them
//
// Run it after changing a manifest or the version of Istio, then make golden,
// and review the difference as code. An unchanged istiod gives unchanged files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"istio.io/istio/pkg/log"

	"meshbridge/testdata/conformance/istiod"
	"meshbridge/testdata/conformance/recording"
)

// scenario says which manifests a recorded proxy lives among.
type scenario struct {
	name      string
	manifests string
	mode      istiod.Mode
	// account is the proxy's service account, for secrets, which istiod gives
	// to authenticated proxies only.
	account string
}

// scenarios are the recorded ones, apart from gateway-api, which needs Gateway
// API and secrets together and comes from an istiod in a cluster, and
// bookinfo-client-sotw, whose resources are those of bookinfo-client.
func scenarios() []scenario {
	return []scenario{
		{name: "bookinfo-client", manifests: "bookinfo", mode: istiod.ModeBootstrap},
		{name: "security-reviews-strict", manifests: "security", mode: istiod.ModeBootstrap},
		{name: "security-ratings-permissive", manifests: "security", mode: istiod.ModeBootstrap},
		{name: "authorization", manifests: "authorization", mode: istiod.ModeBootstrap},
		{name: "gateway-tls", manifests: "gateway-tls", mode: istiod.ModeBootstrap, account: "istio-ingress/ingress-sa"},
		{name: "gateway-credentials", manifests: "gateway-credentials", mode: istiod.ModeBootstrap, account: "istio-ingress/ingress-sa"},
		{name: "service-entry-client", manifests: "service-entry", mode: istiod.ModeBootstrap},
		{name: "tcp-client", manifests: "tcp", mode: istiod.ModeBootstrap},
		{name: "tcp-mysql", manifests: "tcp", mode: istiod.ModeBootstrap},
		{name: "access-logs", manifests: "access-logs", mode: istiod.ModeBootstrap},
		{name: "proxyless-grpc", manifests: "tcp", mode: istiod.ModeBootstrap},
		{name: "gateway-api-client", manifests: "gateway-api", mode: istiod.ModeDiscovery},
	}
}

const timeout = time.Minute

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "capture:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("capture", flag.ExitOnError)
	manifests := flags.String("manifests", filepath.Join("..", "istio"), "directory with the sets of manifests")
	recorded := flags.String("recorded", filepath.Join("..", "istiod"), "directory with the recorded scenarios")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return captureEach(ctx, *manifests, *recorded)
	}
	for _, name := range flags.Args() {
		s, err := find(name)
		if err != nil {
			return err
		}
		if err := s.capture(ctx, *manifests, *recorded); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func find(name string) (scenario, error) {
	for _, s := range scenarios() {
		if s.name == name {
			return s, nil
		}
	}
	return scenario{}, fmt.Errorf("unknown scenario %q", name)
}

// captureEach runs one process per scenario, because istiod's start-up uses
// state that is global to the process.
func captureEach(ctx context.Context, manifests, recorded string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, s := range scenarios() {
		cmd := exec.CommandContext(ctx, self, "-manifests", manifests, "-recorded", recorded, s.name)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (s scenario) capture(ctx context.Context, manifests, recorded string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	quiet := log.DefaultOptions()
	quiet.SetDefaultOutputLevel(log.OverrideScopeName, log.NoneLevel)
	if err := log.Configure(quiet); err != nil {
		return err
	}
	dir := filepath.Join(manifests, s.manifests)
	c := istiod.Config{
		Mode: s.mode,
		// Some recorded configurations are deliberately ones that Istio's
		// webhook refuses: they exist in clusters without it.
		Manifests: istiod.Manifests{Dir: dir, SkipValidation: true},
		GRPC:      "127.0.0.1:0",
		HTTP:      "127.0.0.1:0",
		Logger:    slog.New(slog.DiscardHandler),
	}
	if mesh := filepath.Join(dir, "mesh.yml"); exists(mesh) {
		c.Manifests.MeshFile = mesh
	}
	if s.account != "" {
		c.Secure = "127.0.0.1:0"
		c.Tokens = map[string]string{token: s.account}
	}
	server, err := istiod.Start(c)
	if err != nil {
		return err
	}
	defer server.Stop()
	out := filepath.Join(recorded, s.name)
	resources, err := receive(ctx, server, filepath.Join(out, "node.json"))
	if err != nil {
		return err
	}
	for _, typeURL := range slices.Sorted(maps.Keys(resources)) {
		fmt.Printf("%s: %d resources of type %s\n", s.name, len(resources[typeURL]), typeURL)
	}
	return recording.Write(filepath.Join(out, "xds"), resources)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}
