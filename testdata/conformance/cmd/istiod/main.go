// Command istiod serves xDS from a directory of Istio and Kubernetes YAML, as
// an istiod in a cluster would, and follows edits of the directory.
//
//	go run ./cmd/istiod --dir demo
//
// It prints one line, "ready grpc=... http=... secure=...", when it serves.
// Mistakes in the YAML are reported with file and document, and the previous
// state stays in force.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"istio.io/istio/pkg/log"

	"meshbridge/testdata/conformance/istiod"
)

func main() {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], logger)
	cancel()
	if err != nil {
		logger.Error("istiod ended", slog.Any("error", err))
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, logger *slog.Logger) error {
	config := istiod.Config{Logger: logger, Tokens: map[string]string{}}
	flags := flag.NewFlagSet("istiod", flag.ExitOnError)
	flags.StringVar((*string)(&config.Mode), "mode", string(istiod.ModeDiscovery),
		"discovery (routing, Gateway API, plaintext) or bootstrap (certificate authority, TLS, tokens; no Gateway API)")
	flags.StringVar(&config.Manifests.Dir, "dir", "", "directory of YAML manifests (required)")
	flags.StringVar(&config.GRPC, "grpc", "127.0.0.1:15010", "plaintext xDS address; port 0 picks one")
	flags.StringVar(&config.HTTP, "http", "127.0.0.1:15014", "address of /ready and /debug/")
	flags.StringVar(&config.Secure, "secure", "", "TLS xDS address, for example 127.0.0.1:15012 (mode bootstrap)")
	flags.StringVar(&config.Manifests.MeshFile, "mesh", "", "MeshConfig file; empty means Istio's defaults")
	flags.BoolVar(&config.Manifests.SkipValidation, "skip-validation", false, "accept what Istio's admission webhook would refuse")
	flags.DurationVar(&config.Debounce, "debounce", 100*time.Millisecond, "quiet time before a push (mode discovery)")
	flags.Func("tokens", "accepted tokens, `token=namespace/serviceaccount,...` (mode bootstrap)", func(list string) error {
		return istiod.ParseTokens(list, config.Tokens)
	})
	flags.StringVar(&config.TokenFile, "token-file", "", "file with more tokens, read whenever one is shown (mode bootstrap)")
	rootOut := flags.String("root-cert-out", "", "write the root certificate of the TLS address to this file (mode bootstrap)")
	level := flags.String("log-level", "error", "level of Istio's own log: debug, info, warn, error, none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if config.Manifests.Dir == "" {
		return errors.New("--dir is required")
	}
	if err := setIstioLogLevel(*level); err != nil {
		return err
	}
	server, err := istiod.Start(config)
	if err != nil {
		return err
	}
	defer server.Stop()
	if *rootOut != "" {
		if err := os.WriteFile(*rootOut, server.RootCert, 0o644); err != nil {
			return fmt.Errorf("root certificate: %w", err)
		}
	}
	fmt.Printf("ready grpc=%s http=%s secure=%s\n", server.GRPC, server.HTTP, server.Secure)
	return server.Follow(ctx)
}

func setIstioLogLevel(name string) error {
	levels := map[string]log.Level{
		"debug": log.DebugLevel, "info": log.InfoLevel, "warn": log.WarnLevel, "error": log.ErrorLevel, "none": log.NoneLevel,
	}
	level, ok := levels[name]
	if !ok {
		return fmt.Errorf("unknown log level %q", name)
	}
	options := log.DefaultOptions()
	options.SetDefaultOutputLevel(log.OverrideScopeName, level)
	return log.Configure(options)
}
