package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/bridge"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/cmd/internal/tracing"
	"meshbridge/translate"
	"meshbridge/xds"
)

type runOptions struct {
	source                         sourceOptions
	translation                    translationOptions
	listen, admin, status, metrics string
	internal                       string
	prefix, stateDir               string
	holdTimeout                    time.Duration
	insecureListen                 bool
	requests                       requestMetricsOptions
	accessLogs                     accessLogOptions
	dns                            dnsOptions
	capture                        captureOptions
	mode                           modeOptions
	lifecycle                      lifecycleOptions
	extend                         extendOptions
	serve                          serveOptions
	lastGood                       lastGoodOptions
	handover                       handoverOptions
	// effective are the settings that are not defaults, for the log.
	effective slog.Attr
	// ignored are flags of another program's command line that mean nothing here: the log names them.
	ignored []string
}

func newRun(a *app) *cobra.Command {
	cmd, _ := runCommand(a)
	start := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		// A broken environment is reported by what needs it.
		if node, err := xds.NodeFromEnvironment(a.environ(), os.ReadFile); err == nil {
			if err := setDefaults(cmd.Flags(), podDefaults(a, node)); err != nil {
				return usageError{err}
			}
		}
		return start(cmd, args)
	}
	return cmd
}

// runCommand returns the command together with the options that its flags set.
func runCommand(a *app) (*cobra.Command, *runOptions) {
	o := &runOptions{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the bridge: xDS in, APISIX objects out over etcd v3",
		Long: `Run the bridge: subscribe to istiod (or read xDS from files), translate, and serve
the APISIX objects over the etcd v3 API.

Every flag can also be set by the environment variable MESHBRIDGE_<FLAG>, for
example MESHBRIDGE_APISIX_VERSION, and by a key of the --config file. A flag wins
over the environment, the environment over the file.`,
		Example: `  meshbridge run --xds grpc://istiod.istio-system.svc:15010
  meshbridge run --xds grpcs://istiod.istio-system.svc:15012 --profile direct
  meshbridge run --xds file:testdata/istiod/bookinfo-client/xds \
    --node-id sidecar~10.9.0.1~client.default~default.svc.cluster.local
  meshbridge run --xds grpcs://istiod.example:15012 --state-dir /var/lib/meshbridge \
    --last-good-state world --handover socket`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withConfig(a, cmd, func() error {
				o.effective = effective(cmd.Flags())
				return runBridge(cmd.Context(), a, *o)
			})
		},
	}
	f := cmd.Flags()
	o.source.add(f)
	f.StringVar(&o.listen, "listen", "127.0.0.1:2379", "etcd v3 `address`, gRPC and HTTP; port 0 picks one and logs it")
	f.StringVar(&o.admin, "admin", "127.0.0.1:15000", "admin `address|off`: the status page, Envoy's admin API for istioctl, explain, diagnostics, pprof")
	f.StringVar(&o.status, "status", "127.0.0.1:15021", "readiness `address|off`: /healthz/ready")
	f.StringVar(&o.metrics, "metrics", "127.0.0.1:15020", "`address|off` for Prometheus (/metrics; with APISIX's and the application's: /stats/prometheus),\n"+
		"the application's probes, /drain and /quitquitquit; PROXY_CONFIG's statusPort is the default where it is set")
	f.StringVar(&o.internal, "internal", defaultInternal, "loopback `address|off` where APISIX asks the bridge, and tells it of requests")
	f.StringVar(&o.prefix, "prefix", "/apisix", "APISIX's etcd `prefix`")
	f.StringVar(&o.stateDir, "state-dir", "", "`directory` for what must survive a restart: the revision ceiling")
	f.DurationVar(&o.holdTimeout, "hold-timeout", 30*time.Second, "`duration` for which a request waits for the first world before it gets 503")
	f.BoolVar(&o.insecureListen, "insecure-listen", false, "allow --listen to be reachable from other hosts without TLS, or without client certificates or passwords")
	o.requests.add(f)
	o.accessLogs.add(f)
	o.dns.add(f)
	o.translation.add(f)
	o.capture.add(f)
	o.mode.add(f)
	o.lifecycle.add(f)
	o.extend.add(f)
	o.serve.add(f)
	o.lastGood.add(f)
	o.handover.add(f)
	addConfigFlags(cmd)
	return cmd, o
}

func runBridge(ctx context.Context, a *app, o runOptions) error {
	log, tlsConfig, err := o.serve.resolve(a.stderr)
	if err != nil {
		return err
	}
	if a.adoptGRPC != nil {
		a.adoptGRPC(logscope.Logger(log, logscope.GRPC))
	}
	log.InfoContext(ctx, "starting", slog.String("version", a.version), o.effective)
	if len(o.ignored) > 0 {
		log.InfoContext(ctx, "flags without a meaning here are ignored", slog.String("flags", strings.Join(o.ignored, " ")))
	}
	node, err := o.source.node.config(a)
	if err != nil {
		return usageError{err}
	}
	options, err := o.translation.options(node)
	if err != nil {
		return usageError{err}
	}
	resolution, err := o.dns.config()
	if err != nil {
		return usageError{err}
	}
	front, err := o.capture.config(a, o.translation.profile, &o.source, node)
	if err != nil {
		return usageError{err}
	}
	if o.mode.mode == "sidecar" {
		more, err := o.extend.optionalPlugins(options.APISIXVersion)
		if err != nil {
			return usageError{err}
		}
		o.mode.plugins = slices.Concat(o.mode.plugins, more)
	}
	extensions, err := o.extend.config(ctx, options.APISIXVersion, node, o.mode.plugins)
	if err != nil {
		return usageError{err}
	}
	isGateway := node.Type == xds.NodeRouter
	child, err := o.mode.config(o.translation.apisixOptions, o.capture.ports, o.prefix, isGateway, a.stdout, a.stderr)
	if err != nil {
		return usageError{err}
	}
	pod, err := podConfig(a, node, o.metrics, o.mode.metrics())
	if err != nil {
		return usageError{err}
	}
	newSource, err := o.source.source(node, logscope.Logger(log, logscope.XDS))
	if err != nil {
		return usageError{err}
	}
	if front != nil {
		options.OverlayPort = int(front.Server.Overlay.Port())
	}
	authority, err := o.serve.auth.authority(ctx, false, log)
	if err != nil {
		return err
	}
	requests, err := o.requests.config()
	if err != nil {
		return usageError{err}
	}
	accessLogs, err := o.accessLogs.config(a.stdout, a.stderr)
	if err != nil {
		return usageError{err}
	}
	if options.BridgeAccessLogs, err = o.accessLogs.byBridge(); err != nil {
		return usageError{err}
	}
	identity, istiod := o.source.about(node)
	lastGood, err := o.lastGood.config(o.stateDir, identity)
	if err != nil {
		return usageError{err}
	}
	successors, err := o.handover.config(o.stateDir, o.mode.mode)
	if err != nil {
		return usageError{err}
	}
	b, err := bridge.New(ctx, bridge.Config{
		Node: identity, Istiod: istiod, TokenFile: o.source.token(node),
		NewSource: newSource, Translate: options, DNS: resolution, Capture: front, APISIX: child, Extensions: extensions,
		Prefix: o.prefix, StateDir: o.stateDir, LastGood: lastGood, Handover: successors,
		Lifecycle: o.lifecycle.config(a.signals.hurry()), Pod: pod,
		Listen: o.listen, Admin: o.admin, Status: o.status, Metrics: o.metrics, Internal: o.internal,
		RequestMetrics: requests, AccessLogs: accessLogs,
		Tracing: &tracing.Config{Getenv: a.getenv, Version: a.version, NodeID: identity.GetId(), Logger: logscope.Logger(log, logscope.Telemetry)},
		TLS:     tlsConfig, InsecureListen: o.insecureListen,
		KeepRevisions: o.serve.history.revisions, KeepFor: o.serve.history.keepFor(), HoldTimeout: o.holdTimeout,
		Auth: authority, Limits: o.serve.limits.resolve(), CORSOrigins: o.serve.limits.cors, HostWhitelist: o.serve.limits.hosts,
		Version: a.version, Logger: log,
	})
	if err != nil {
		return err
	}
	return b.Run(ctx)
}

// sourceOptions say where resources come from and who we are.
type sourceOptions struct {
	xds, mode                       string
	tokenFile, rootCert, serverName string
	node                            nodeOptions
	// nameTable subscribes to the names for a DNS server.
	nameTable bool
}

func (o *sourceOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.xds, "xds", "", "`target` that resources come from: grpc://HOST:15010, grpcs://HOST:15012 or file:PATH;\n"+
		"default: discoveryAddress of the environment's PROXY_CONFIG, where the injector has set that")
	f.StringVar(&o.mode, "xds-mode", "delta", "xDS protocol variant: `delta|sotw`")
	f.StringVar(&o.tokenFile, "xds-token-file", "./var/run/secrets/tokens/istio-token", "`file` with the bearer token for grpcs, read afresh for every request; empty sends none")
	f.StringVar(&o.rootCert, "xds-root-cert", "./var/run/secrets/istio/root-cert.pem", "PEM `file` that istiod's certificate is verified with for grpcs")
	f.StringVar(&o.serverName, "xds-server-name", "", "`name` that istiod's certificate must have; default: the host of --xds")
	f.StringVar(&o.node.id, "node-id", "", "xDS node `id`, like sidecar~IP~POD.NS~NS.svc.cluster.local; default: from Istio's environment variables")
	f.StringVar(&o.node.kind, "node-type", xds.NodeSidecar, "what istiod is told that we are: `sidecar|router`; a router is a gateway")
	f.StringVar(&o.node.domain, "domain", "", "DNS `domain` of the pod's services; default: NAMESPACE.svc.cluster.local")
	f.StringVar(&o.node.metadata, "node-metadata", "", "`JSON` object merged over the node metadata")
}

// target returns where istiod is.
func (o *sourceOptions) target(node xds.NodeConfig) (xds.Target, error) {
	address := o.xds
	if address == "" && node.ProxyConfig != nil {
		// The injector leaves out what is Istio's default.
		address = discoveryTarget(cmp.Or(node.ProxyConfig.GetDiscoveryAddress(), "istiod.istio-system.svc:15012"))
	}
	if address == "" {
		return xds.Target{}, errors.New("--xds: say where istiod is, for example grpc://istiod.istio-system.svc:15010")
	}
	target, err := xds.ParseTarget(address)
	if err != nil {
		return target, fmt.Errorf("--xds: %w", err)
	}
	return target, nil
}

// about returns what there is to say of who we are and where istiod is.
func (o *sourceOptions) about(config xds.NodeConfig) (node *corepb.Node, istiod string) {
	// Files need neither.
	if target, err := o.target(config); err == nil && target.Scheme != xds.SchemeFile {
		istiod = target.Address
	}
	if known, err := config.Node(); err == nil {
		node = known
	}
	return node, istiod
}

// token returns the file with the token that istiod is shown; empty where it is shown none.
func (o *sourceOptions) token(config xds.NodeConfig) string {
	if target, err := o.target(config); err != nil || target.Scheme != xds.SchemeTLS {
		return ""
	}
	return o.tokenFile
}

// source checks the options and returns the source's constructor.
func (o *sourceOptions) source(node xds.NodeConfig, log *slog.Logger) (func(prometheus.Registerer) (xds.Source, error), error) {
	target, err := o.target(node)
	if err != nil {
		return nil, err
	}
	if target.Scheme == xds.SchemeFile {
		return func(prometheus.Registerer) (xds.Source, error) {
			return xds.NewFileSource(xds.FileConfig{Path: target.Path, Logger: log})
		}, nil
	}
	config := xds.Config{Address: target.Address, Logger: log, NameTable: o.nameTable}
	switch o.mode {
	case "delta":
	case "sotw":
		config.StateOfTheWorld = true
	default:
		return nil, fmt.Errorf("--xds-mode %q: want delta or sotw", o.mode)
	}
	if config.Node, err = node.Node(); err != nil {
		return nil, fmt.Errorf("%w (--node-id sets all of it)", err)
	}
	if target.Scheme == xds.SchemeTLS {
		config.TransportCredentials = xds.NewTLSCredentials(xds.TLSConfig{RootFile: o.rootCert, ServerName: o.serverName})
		if o.tokenFile != "" {
			config.PerRPCCredentials = xds.NewTokenCredentials(o.tokenFile)
		}
	}
	return func(r prometheus.Registerer) (xds.Source, error) {
		config.Registerer = r
		return xds.New(config)
	}, nil
}

// discoveryTarget turns Istio's discoveryAddress into a target: by convention port 15010 is plaintext.
func discoveryTarget(address string) string {
	if strings.HasSuffix(address, ":15010") {
		return "grpc://" + address
	}
	return "grpcs://" + address
}

// translationOptions say for which APISIX to translate.
// defaultInternal is the address of the internal port, unless a flag says otherwise.
const defaultInternal = "127.0.0.1:15099"

type translationOptions struct {
	apisixOptions
	allowUnenforced []string
}

func (o *translationOptions) add(f *pflag.FlagSet) {
	o.apisixOptions.add(f)
	f.StringSliceVar(&o.allowUnenforced, "allow-unenforced", nil, "diagnostic `codes` of access restrictions to leave unenforced instead of answering 403")
}

func (o *translationOptions) options(node xds.NodeConfig) (translate.Options, error) {
	version, err := o.parsedVersion()
	if err != nil {
		return translate.Options{}, err
	}
	options := translate.Options{
		APISIXVersion: version, InstanceIPs: node.IPs,
		OutboundPort: int(o.outboundPort), InboundPort: int(o.inboundPort),
	}
	// Files can be translated without an identity, which then is missing from the labels.
	if id, err := node.Node(); err == nil {
		options.NodeID, options.Metadata = id.GetId(), id.GetMetadata()
		l := id.GetLocality()
		options.Locality = translate.Locality{Region: l.GetRegion(), Zone: l.GetZone(), SubZone: l.GetSubZone()}
	}
	for _, code := range o.allowUnenforced {
		options.AllowUnenforced = append(options.AllowUnenforced, translate.Code(code))
	}
	if options.Profile, err = translate.ParseProfile(o.profile, options); err != nil {
		return translate.Options{}, fmt.Errorf("--profile: %w", err)
	}
	if _, err := translate.New(options); err != nil {
		return translate.Options{}, err
	}
	return options, nil
}
