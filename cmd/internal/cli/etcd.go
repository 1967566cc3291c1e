package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"meshbridge/gateway"
	"meshbridge/store"
)

type etcdOptions struct {
	listen       string
	revisionBase string
	progress     time.Duration
	serve        serveOptions
	maintenance  maintenanceOptions
}

func newEtcd(a *app) *cobra.Command {
	var o etcdOptions
	cmd := &cobra.Command{
		Use:   "etcd",
		Short: "Serve a plain writable store over the etcd v3 API, without xDS",
		Long: `Serve a writable, in-memory store over the etcd v3 API (gRPC and HTTP/JSON on
one port). It begins empty, or with a snapshot. What is written is lost when the
process ends, but for what "etcdctl snapshot save" has saved.`,
		Example: `  meshbridge etcd --listen 127.0.0.1:2379
  etcdctl put /apisix/routes/1 '{"uri":"/*"}'
  etcdctl snapshot save saved.db
  meshbridge etcd --restore saved.db`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withConfig(a, cmd, func() error { return runEtcd(cmd.Context(), a, cmd.Flags(), o) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:2379", "etcd v3 `address`, gRPC and HTTP")
	f.StringVar(&o.revisionBase, "revision-base", "epoch",
		"where revisions start: `1|epoch`; 1 is etcd to the letter, epoch the clock in milliseconds, so that clients notice a restart")
	f.DurationVar(&o.progress, "watch-progress-notify-interval", 10*time.Minute,
		"`duration` for which a watch that asked for progress hears nothing before it is told how far it is")
	o.serve.add(f)
	o.maintenance.add(f)
	addConfigFlags(cmd)
	return cmd
}

func runEtcd(ctx context.Context, a *app, flags *pflag.FlagSet, o etcdOptions) error {
	log, tlsConfig, err := o.serve.resolve(a.stderr)
	if err != nil {
		return err
	}
	var sc store.Config
	if err := o.maintenance.compaction.bound(&sc, &o.serve.history, flags); err != nil {
		return usageError{err}
	}
	switch o.revisionBase {
	case "1":
	case "epoch":
		sc.BaseRevision, sc.RefuseFuture = time.Now().UnixMilli(), true
	default:
		return usageError{fmt.Errorf("--revision-base %q: want 1 or epoch", o.revisionBase)}
	}
	authority, err := o.serve.auth.authority(ctx, true, log)
	if err != nil {
		return err
	}
	gc, err := o.maintenance.open(sc, authority)
	if err != nil {
		return err
	}
	st := gc.Store
	defer st.Close()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("etcd port: --listen %s: %w", o.listen, err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	scheme := "http"
	if tlsConfig != nil {
		scheme = "https"
	}
	gc.TLS, gc.Name, gc.ClientURLs = tlsConfig, "meshbridge", []string{scheme + "://" + l.Addr().String()}
	gc.ProgressInterval, gc.Limits = o.progress, o.serve.limits.resolve()
	gc.CORSOrigins, gc.HostWhitelist = o.serve.limits.cors, o.serve.limits.hosts
	gc.Logger, gc.Registerer, gc.Gatherer = log, registry, registry
	gw, err := gateway.New(gc)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	log.InfoContext(ctx, "serving etcd", slog.String("address", l.Addr().String()), slog.Int64("revision", st.Revision()))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return st.Run(ctx) })
	group.Go(func() error { return gw.Serve(ctx, l) })
	return group.Wait()
}
