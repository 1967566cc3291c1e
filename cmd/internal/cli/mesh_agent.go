package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// meshAgentOptions are the flags of "apisix-mesh-agent sidecar" that run has under another name.
type meshAgentOptions struct {
	runMode, provisioner, source string
	watch                        []string
	listen, prefix               string
	binary, home                 string
	logOutput                    string
}

func (o *meshAgentOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.runMode, "run-mode", "standalone", "`standalone|bundle`; now --mode standalone|sidecar")
	f.StringVar(&o.provisioner, "provisioner", "xds-v3-file", "`xds-v3-file|xds-v3-grpc`; now part of --xds")
	f.StringVar(&o.source, "xds-config-source", "", "`target` with xds-v3-grpc; now --xds")
	f.StringSliceVar(&o.watch, "xds-watch-files", nil, "`file` with xds-v3-file; now --xds file:PATH")
	f.StringVar(&o.listen, "grpc-listen", "", "`address`; now --listen")
	f.StringVar(&o.prefix, "etcd-key-prefix", "", "`prefix`; now --prefix")
	f.StringVar(&o.binary, "apisix-bin-path", "", "`program`; now --apisix-bin")
	f.StringVar(&o.home, "apisix-home-path", "", "`directory`; now --apisix-home")
	f.StringVar(&o.logOutput, "log-output", "stderr", "`file`; logs are on stderr")
}

// newMeshAgent takes the command line of apisix-mesh-agent, says how it is spelt now, and runs that.
func newMeshAgent(a *app) *cobra.Command {
	cmd, _ := runCommand(a)
	cmd.Use = "sidecar"
	cmd.Short = "Run with the flags of apisix-mesh-agent"
	cmd.Long = `Run with the flags of "apisix-mesh-agent sidecar". What they are called now is
printed; use "meshbridge run" with these instead. The flags of run are taken, too.`
	cmd.Example = "  meshbridge sidecar --provisioner xds-v3-grpc --xds-config-source grpc://istiod.istio-system.svc:15010"
	cmd.Hidden = true
	var o meshAgentOptions
	old := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.add(old)
	old.VisitAll(func(f *pflag.Flag) { f.Hidden = true })
	cmd.Flags().AddFlagSet(old)
	start := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		spelling, err := o.translate(cmd.Flags())
		if err != nil {
			return usageError{err}
		}
		line := []string{"meshbridge", "run"}
		for _, s := range spelling {
			if err := cmd.Flags().Set(s[0], s[1]); err != nil {
				return usageError{fmt.Errorf("--%s: %w", s[0], err)}
			}
			line = append(line, "--"+s[0], s[1])
		}
		// Those that run has by the same name.
		cmd.Flags().Visit(func(f *pflag.Flag) {
			given := slices.ContainsFunc(spelling, func(s [2]string) bool { return s[0] == f.Name })
			if !f.Hidden && !given && configurable(f.Name) {
				line = append(line, "--"+f.Name+"="+f.Value.String())
			}
		})
		fmt.Fprintf(a.stderr, "meshbridge: \"sidecar\" is how apisix-mesh-agent was started; now it is spelt:\n  %s\n", strings.Join(line, " "))
		return start(cmd, args)
	}
	return cmd
}

// translate returns the flags of run, by name and value.
func (o *meshAgentOptions) translate(f *pflag.FlagSet) (flags [][2]string, err error) {
	add := func(name, value string) {
		if value != "" {
			flags = append(flags, [2]string{name, value})
		}
	}
	switch o.runMode {
	case "standalone":
		add("mode", "standalone")
	case "bundle":
		add("mode", "sidecar")
	default:
		return nil, fmt.Errorf("--run-mode %q: want standalone or bundle", o.runMode)
	}
	switch {
	case f.Changed("xds"):
	case o.provisioner == "xds-v3-grpc":
		if o.source == "" {
			return nil, errors.New("--provisioner xds-v3-grpc needs --xds-config-source")
		}
		add("xds", o.source)
	case o.provisioner != "xds-v3-file":
		return nil, fmt.Errorf("--provisioner %q: want xds-v3-file or xds-v3-grpc", o.provisioner)
	case len(o.watch) != 1:
		return nil, fmt.Errorf("--xds-watch-files: %d paths given: name one file, or the directory that all are in", len(o.watch))
	default:
		add("xds", "file:"+o.watch[0])
	}
	if o.logOutput != "stderr" && o.logOutput != "/dev/stderr" {
		return nil, fmt.Errorf("--log-output %s: logs are on stderr alone: redirect it, with 2>%s", o.logOutput, o.logOutput)
	}
	add("listen", o.listen)
	add("prefix", o.prefix)
	add("apisix-bin", o.binary)
	add("apisix-home", o.home)
	// Two levels have no name of their own here.
	if level := f.Lookup("log-level").Value.String(); level == "panic" || level == "fatal" {
		add("log-level", "critical")
	}
	return flags, nil
}
