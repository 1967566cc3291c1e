package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"meshbridge/cmd/internal/iptables"
)

// exitValidation is how Istio's program says that connections are not redirected, which its CNI plugin's
// repair looks for.
const exitValidation = 126

// codedError ends the program with an exit code of its own.
type codedError struct {
	error
	code int
}

func (e codedError) Unwrap() error { return e.error }

func newIptables(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "iptables",
		Short: "Redirect connections to the bridge, where neither istio-init nor istio-cni does",
		Long: `Redirect the connections of this network namespace, a pod's or a machine's, to the
bridge (profile mesh) or to APISIX (profile direct). With the same options the
rules are those of istio-iptables; its flags are taken as well. What an earlier
call, or Istio, has made is replaced in one step. Needs the capabilities
NET_ADMIN and NET_RAW, and iptables' programs.`,
		Example: `  meshbridge iptables --dry-run
  meshbridge iptables --proxy-uid 1337 --exclude-outbound-ranges 169.254.169.254/32 --redirect-dns
  meshbridge iptables --profile direct --inbound-ports 8080,9090
  meshbridge iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i '*' -b '*' -d 15090,15021,15020`,
	}
	return iptablesCommand(a, cmd, false, false)
}

func newCleanupIptables(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cleanup-iptables",
		Short: "Take away the rules of iptables",
		Long: `Take away the rules that "meshbridge iptables", or Istio, has made: its chains and
what leads there. Rules for whole interfaces (--exclude-interfaces,
--virtual-interfaces) are found if the same flags are given.`,
		Example: `  meshbridge cleanup-iptables
  meshbridge cleanup-iptables --dry-run`,
	}
	return iptablesCommand(a, cmd, false, true)
}

// newIstioIptables is what Istio's stock template runs in the init container, with Istio's defaults.
func newIstioIptables(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "istio-iptables", Short: "iptables, with the defaults of Istio's program", Hidden: true}
	cmd.FParseErrWhitelist.UnknownFlags = true
	return iptablesCommand(a, cmd, true, false)
}

func newIstioCleanIptables(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "istio-clean-iptables", Short: "cleanup-iptables, with the flags of Istio's program", Hidden: true}
	cmd.FParseErrWhitelist.UnknownFlags = true
	return iptablesCommand(a, cmd, true, true)
}

// iptablesCommand completes a command with flags and what it does.
func iptablesCommand(a *app, cmd *cobra.Command, asIstio, cleanup bool) *cobra.Command {
	var o iptablesOptions
	var log logOptions
	cmd.Args = cobra.NoArgs
	f := cmd.Flags()
	o.add(f, asIstio)
	log.add(f)
	if !asIstio {
		addConfigFlags(cmd)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.istio.cleanup = o.istio.cleanup || cleanup
		if asIstio {
			if err := o.setFromIstio(f, a.getenv); err != nil {
				return usageError{err}
			}
			if level := agentLevel(o.istio.output, ""); level != "" && !f.Changed("log-level") {
				log.level = level
			}
			if o.istio.asJSON {
				log.format = "json"
			}
			return o.run(cmd.Context(), a, log)
		}
		return withConfig(a, cmd, func() error { return o.run(cmd.Context(), a, log) })
	}
	return cmd
}

func (o *iptablesOptions) run(ctx context.Context, a *app, logging logOptions) error {
	log, err := logging.logger(a.stderr)
	if err != nil {
		return usageError{err}
	}
	c, err := o.config(a)
	if err != nil {
		return usageError{err}
	}
	v4, v6 := iptables.Render(c)
	if o.dryRun && !o.istio.cleanup {
		_, err := fmt.Fprintf(a.stdout, "# iptables-restore --noflush\n%s# ip6tables-restore --noflush\n%s", v4.Restore(), v6.Restore())
		return err
	}
	if !o.istio.skipApply {
		tool, err := iptables.Detect(ctx, o.variant, c.IPv6, log)
		if err != nil {
			return err
		}
		switch {
		case o.dryRun:
			err = tool.PrintRemoval(ctx, a.stdout, v4, v6)
		case o.istio.cleanup:
			err = tool.Remove(ctx, v4, v6)
		default:
			err = tool.Apply(ctx, v4, v6)
		}
		if err != nil {
			return err
		}
	}
	if o.istio.validate {
		if err := iptables.Validate(ctx, c, o.istio.probePort, o.istio.probeTimeout); err != nil {
			return codedError{fmt.Errorf("connections are not redirected: was the pod started before Istio's CNI plugin was ready on its node? %w", err), exitValidation}
		}
		log.InfoContext(ctx, "connections are redirected")
	}
	return nil
}
