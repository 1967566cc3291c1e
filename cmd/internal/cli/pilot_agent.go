package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/bridge"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/xds"
)

// pilotAgent is the name of Istio's agent, under which its templates and people call the program.
const pilotAgent = "pilot-agent"

// Where Istio's injection template mounts what its agent looks for.
const (
	workloadSocket      = "var/run/secrets/workload-spiffe-uds/socket"
	workloadCredentials = "var/run/secrets/workload-spiffe-credentials" //nolint:gosec // a directory
	istioData           = "var/lib/istio/data"
)

// asPilotAgent makes the command line tolerant: flags that only Istio's agent has are ignored.
func asPilotAgent(root *cobra.Command) {
	root.Use = pilotAgent
	root.FParseErrWhitelist.UnknownFlags = true
	for _, c := range root.Commands() {
		c.FParseErrWhitelist.UnknownFlags = true
	}
}

// agentOptions are the flags of "pilot-agent proxy" that have a meaning here.
type agentOptions struct {
	outputLevel, proxyLevel string
	asJSON                  bool
}

func (o *agentOptions) add(f *pflag.FlagSet) {
	others := pflag.NewFlagSet("", pflag.ContinueOnError)
	others.StringVar(&o.outputLevel, "log_output_level", "", "")
	others.StringVar(&o.proxyLevel, "proxyLogLevel", "", "")
	others.BoolVar(&o.asJSON, "log_as_json", false, "")
	// Known, so that their values are not taken for arguments.
	for _, name := range []string{"proxyComponentLogLevel", "meshConfig", "tokenManagerPlugin", "serviceCluster", "templateFile", "outlierLogPath"} {
		others.String(name, "", "")
	}
	others.Int("stsPort", 0, "")
	others.Int("concurrency", 0, "")
	others.Bool("profiling", true, "")
	others.VisitAll(func(flag *pflag.Flag) { flag.Hidden = true })
	f.AddFlagSet(others)
}

// newProxy is what Istio's stock templates run: the bridge with an APISIX of its own in profile mesh, with
// settings from what the injector puts into the container. They rank below flags, environment and file.
func newProxy(a *app) *cobra.Command {
	cmd, run := runCommand(a)
	cmd.Use = "proxy [sidecar|router]"
	cmd.Short = "Run as Istio's agent is run, with the flags of pilot-agent"
	cmd.Hidden = true
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.FParseErrWhitelist.UnknownFlags = true
	var o agentOptions
	o.add(cmd.Flags())
	start := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		kind := xds.NodeSidecar
		if len(args) > 0 {
			kind = args[0]
		}
		settings, err := o.settings(a, kind, "/")
		if err != nil {
			return usageError{err}
		}
		if err := setDefaults(cmd.Flags(), settings); err != nil {
			return usageError{err}
		}
		run.ignored = o.ignored(a.args, cmd.Flags())
		return start(cmd, nil)
	}
	return cmd
}

// settings are the flags of run that the injector's variables and files ask for. Root is the directory
// below which the files are.
func (o *agentOptions) settings(a *app, kind, root string) (map[string]string, error) {
	node, err := xds.NodeFromEnvironment(a.environ(), os.ReadFile)
	if err != nil {
		return nil, fmt.Errorf("node identity: %w", err)
	}
	switch {
	case node.Metadata["ENABLE_HBONE"] == "true":
		return nil, errors.New("ISTIO_META_ENABLE_HBONE is set: HBONE (port 15008) is not supported, so leave it out of proxyMetadata")
	case node.InterceptionMode == "TPROXY":
		return nil, errors.New("interception mode TPROXY is not supported: nginx cannot bind to addresses of others. Use REDIRECT")
	}
	settings := map[string]string{
		"mode": "sidecar", "profile": "mesh", "node-type": kind,
		"status": ":15021", "metrics": ":15020",
	}
	maps.Copy(settings, podDefaults(a, node))
	switch port := node.Annotations["status.sidecar.istio.io/port"]; port {
	case "":
	case "0":
		settings["metrics"] = bridge.Off
	default:
		settings["metrics"] = ":" + port
	}
	if isDir(filepath.Join(root, istioData)) {
		// Istio's template makes the root read-only, but for this.
		settings["state-dir"], settings["apisix-work-dir"] = filepath.Join(root, istioData), filepath.Join(root, istioData)
	}
	maps.Copy(settings, existingIdentity(root))
	if o.asJSON {
		settings["log-format"] = "json"
	}
	if level := agentLevel(o.outputLevel, o.proxyLevel); level != "" {
		settings["log-level"] = level
	}
	return settings, nil
}

// existingIdentity finds the certificate of a workload that others issue, as Istio's agent does: on the
// socket of another agent, such as SPIRE's, or in files.
func existingIdentity(root string) map[string]string {
	socket := filepath.Join(root, workloadSocket)
	if info, err := os.Stat(socket); err == nil && info.Mode().Type() == os.ModeSocket {
		return map[string]string{"identity": "sds:" + socket}
	}
	directory := filepath.Join(root, workloadCredentials)
	for _, name := range []string{"cert-chain.pem", "key.pem", "root-cert.pem"} {
		if _, err := os.Stat(filepath.Join(directory, name)); err != nil {
			return nil
		}
	}
	return map[string]string{"identity": "files:" + directory}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// agentLevel turns the agent's --log_output_level (default:info,xds:debug) into ours, without the scopes
// that only the agent has; without it the proxy's --proxyLogLevel counts.
func agentLevel(output, proxy string) string {
	if output == "" {
		output, _, _ = strings.Cut(proxy, ",")
	}
	var levels []string
	for part := range strings.SplitSeq(output, ",") {
		scope, level, scoped := strings.Cut(strings.TrimSpace(part), ":")
		switch {
		case !scoped && scope != "":
			level = scope
		case scope == "default" || scope == "all":
		case slices.Contains(logscope.Names(), scope):
			level = scope + ":" + levelName(level)
			levels = append(levels, level)
			continue
		default:
			continue
		}
		// The level of the rest comes first.
		levels = slices.Insert(levels, 0, levelName(level))
	}
	return strings.Join(levels, ",")
}

// levelName is Istio's or Envoy's name of a level in our terms.
func levelName(level string) string {
	switch level {
	case "warning":
		return "warn"
	case "none":
		return "off"
	case "fatal":
		return "critical"
	default:
		return level
	}
}

// ignored names the flags of a command line that have no effect, each once.
func (*agentOptions) ignored(args []string, flags *pflag.FlagSet) (names []string) {
	meant := []string{"log_output_level", "log_as_json", "proxyLogLevel"}
	for _, arg := range args {
		name, ok := strings.CutPrefix(arg, "--")
		if name, _, _ = strings.Cut(name, "="); !ok || name == "" {
			continue
		}
		f := flags.Lookup(name)
		if (f == nil || f.Hidden && !slices.Contains(meant, name)) && !slices.Contains(names, "--"+name) {
			names = append(names, "--"+name)
		}
	}
	return names
}

// setDefaults gives flags other values to have where nothing else sets them.
func setDefaults(flags *pflag.FlagSet, values map[string]string) error {
	for name, value := range values {
		f := flags.Lookup(name)
		if f.Changed {
			continue
		}
		var err error
		if list, ok := f.Value.(pflag.SliceValue); ok {
			err = list.Replace(strings.Split(value, ",")) // Set would add to it the next time
		} else {
			err = f.Value.Set(value)
		}
		if err != nil {
			return fmt.Errorf("--%s %q: %w", name, value, err)
		}
	}
	return nil
}
