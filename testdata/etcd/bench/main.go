// Command bench compares meshbridge with a real etcd, side by side in one run,
// and measures what the bridge itself costs. It prints Markdown tables.
//
//	go run ./bench                       everything, about five minutes
//	go run ./bench -parts put,range      some of it
//
// All servers run as processes of their own on this machine, as does the load,
// so the ratios mean more than the absolute figures. etcd runs without fsync:
// that is not how to run it, but it leaves the disk out of the comparison, to
// etcd's advantage.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// options are the command line.
type options struct {
	meshbridge, etcd string // paths of the programs; built when empty
	parts            []string
	per              time.Duration // of one timed measurement
	services         []int
	alone            bool // leave etcd out
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.StringVar(&o.meshbridge, "meshbridge", os.Getenv("MESHBRIDGE"), "meshbridge `binary`; empty builds it")
	flags.StringVar(&o.etcd, "etcd", os.Getenv("ETCD"), "etcd server `binary`; empty builds it")
	parts := flags.String("parts", "put,txn,range,fanout,idle,sync,endpoints", "what to measure")
	services := flags.String("services", "100,1000,5000,10000", "mesh sizes of part sync")
	flags.DurationVar(&o.per, "per", 3*time.Second, "duration of one timed measurement")
	flags.BoolVar(&o.alone, "alone", false, "leave etcd out where it is compared with")
	noop := flags.Bool("serve-noop", false, "serve the no-op gRPC server that puts are compared with (used by the command itself)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *noop {
		return serveNoop(ctx)
	}
	o.parts = strings.Split(*parts, ",")
	for n := range strings.SplitSeq(*services, ",") {
		var count int
		if _, err := fmt.Sscan(n, &count); err != nil {
			return fmt.Errorf("-services %q: %w", n, err)
		}
		o.services = append(o.services, count)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := o.build(ctx, dir); err != nil {
		return err
	}
	return o.measure(ctx, dir)
}

// build makes the programs that were not given.
func (o *options) build(ctx context.Context, dir string) error {
	if o.etcd == "" {
		o.etcd = filepath.Join(dir, "etcd")
		if err := goBuild(ctx, ".", "go.etcd.io/etcd/server/v3", o.etcd); err != nil {
			return err
		}
	}
	if o.meshbridge == "" {
		o.meshbridge = filepath.Join(dir, "meshbridge")
		return goBuild(ctx, filepath.Join("..", ".."), "./cmd/meshbridge", o.meshbridge)
	}
	return nil
}

// servers are those that are compared with each other.
func (o *options) servers() []func(context.Context, string) (*process, error) {
	if o.alone {
		return []func(context.Context, string) (*process, error){o.startStore}
	}
	return []func(context.Context, string) (*process, error){o.startEtcd, o.startStore}
}

// part is one group of measurements.
type part struct {
	name string
	run  func(ctx context.Context, dir string) error
}

func (o *options) measure(ctx context.Context, dir string) error {
	known := []part{
		{"put", o.measurePut},
		{"txn", o.measureTxn},
		{"range", o.measureRange},
		{"fanout", o.measureFanout},
		{"idle", o.measureIdle},
		{"sync", o.measureSync},
		{"endpoints", o.measureEndpoints},
	}
	for _, name := range o.parts {
		if !slices.ContainsFunc(known, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("unknown part %q", name)
		}
	}
	fmt.Printf("%s\n\n", machine())
	for _, p := range known {
		if !slices.Contains(o.parts, p.name) {
			continue
		}
		if err := p.run(ctx, dir); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}
