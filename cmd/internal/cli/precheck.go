package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"meshbridge/cmd/internal/apisixconfig"
	"meshbridge/cmd/internal/bridge"
	"meshbridge/cmd/internal/precheck"
	"meshbridge/xds"
)

// newPrecheck has the flags of run: what they ask for is what is looked at.
func newPrecheck(a *app) *cobra.Command {
	cmd, o := runCommand(a)
	cmd.Use = "precheck"
	cmd.Short = "Look whether a pod or a machine has what the bridge needs"
	cmd.Long = `Look, before the bridge is started, whether a pod or a machine has what "meshbridge
run" with the same flags, environment and file needs: istiod and the way there,
credentials, ports, redirection, limits, APISIX. Each thing is a line: ok, warn
or fail, and what to do. Nothing is changed. The exit code is 1 if one fails.`
	cmd.Example = `  meshbridge precheck --xds grpcs://istiod.istio-system.svc:15012 --profile mesh
  meshbridge precheck --mode sidecar --profile mesh -o json`
	var output string
	cmd.Flags().StringVarP(&output, "output", "o", "text", "`text|json`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if node, err := xds.NodeFromEnvironment(a.environ(), os.ReadFile); err == nil {
			if err := setDefaults(cmd.Flags(), podDefaults(a, node)); err != nil {
				return usageError{err}
			}
		}
		return withConfig(a, cmd, func() error { return o.precheck(cmd.Context(), a, output) })
	}
	return cmd
}

func (o *runOptions) precheck(ctx context.Context, a *app, output string) error {
	if output != "text" && output != "json" {
		return usageError{fmt.Errorf("--output %q: want text or json", output)}
	}
	checks, err := o.checks(a)
	if err != nil {
		return err
	}
	results := precheck.Run(ctx, checks...)
	if output == "json" {
		encoder := json.NewEncoder(a.stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(results)
	} else {
		err = precheck.Write(a.stdout, results)
	}
	if err == nil && precheck.Failed(results) {
		return errReported
	}
	return err
}

// checks are those that the options call for. What keeps run from starting is an error.
func (o *runOptions) checks(a *app) ([]precheck.Check, error) {
	node, err := o.source.node.config(a)
	if err != nil {
		return nil, usageError{err}
	}
	target, err := o.source.target(node)
	if err != nil {
		return nil, usageError{err}
	}
	version, err := o.translation.parsedVersion()
	if err != nil {
		return nil, usageError{err}
	}
	front, err := o.capture.config(a, o.translation.profile, &o.source, node)
	if err != nil {
		return nil, usageError{err}
	}
	newSource, err := o.source.source(node, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, usageError{err}
	}
	istiod := precheck.Istiod{
		Target: target, RootFile: o.source.rootCert, ServerName: o.source.serverName,
		NewSource: func() (xds.Source, error) { return newSource(prometheus.NewRegistry()) },
	}
	started := o.mode.mode == "sidecar"
	configuration, err := o.apisixConfiguration(node.Type == xds.NodeRouter)
	if err != nil && started {
		return nil, usageError{err}
	}

	var checks []precheck.Check
	if target.Scheme == xds.SchemeTLS {
		if o.source.tokenFile != "" {
			checks = append(checks, precheck.Token(o.source.tokenFile))
		}
		checks = append(checks, precheck.Root(o.source.rootCert))
	}
	checks = append(checks, precheck.ControlPlane(istiod), precheck.Ports(o.ports(front, started)))
	if node.Type != xds.NodeRouter && o.translation.profile != "gateway" {
		checks = append(checks, precheck.Redirection, precheck.User)
	}
	checks = append(checks, precheck.Capabilities, precheck.Limits, precheck.IPv6(a.addresses))
	if o.stateDir != "" {
		checks = append(checks, precheck.Writable("state directory", o.stateDir, "make it, for the user of the bridge"))
	}
	child := precheck.APISIX{
		Home: o.mode.home, WorkDir: o.mode.work, Program: o.mode.apisix, OpenResty: o.mode.openResty,
		Version: version.OrDefault(), Configuration: configuration, Started: started,
	}
	return append(checks, child.Check), nil
}

// apisixConfiguration is the file that APISIX needs.
func (o *runOptions) apisixConfiguration(edge bool) ([]byte, error) {
	file := o.mode.file(o.translation.apisixOptions, o.capture.ports, o.prefix, "http://"+o.listen, edge)
	config, err := file.config()
	if err != nil {
		return nil, err
	}
	return apisixconfig.Render(config)
}

// ports are those that are going to be bound: the bridge's, and APISIX's where it is started.
func (o *runOptions) ports(front *bridge.CaptureConfig, started bool) (all []precheck.Port) {
	add := func(flag, address string) {
		if address != bridge.Off && address != "" {
			all = append(all, precheck.Port{Flag: "--" + flag, Address: address})
		}
	}
	add("listen", o.listen)
	add("admin", o.admin)
	add("status", o.status)
	add("metrics", o.metrics)
	add("internal", o.internal)
	if front != nil {
		for _, address := range front.Server.Outbound {
			add("capture-outbound", address.String())
		}
		for _, address := range front.Server.Inbound {
			add("capture-inbound", address.String())
		}
		add("capture-overlay", front.Server.Overlay.String())
		if front.DNS != nil {
			for _, address := range front.DNS.Addresses {
				add("capture-dns", address.String())
			}
		}
	}
	if !started {
		return all
	}
	add("apisix-status", o.mode.status)
	add("apisix-metrics", o.mode.prometheus)
	local := func(flag string, port uint16) { add(flag, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))) }
	switch o.translation.profile {
	case "mesh":
		local("apisix-http-pp", o.capture.ports.http)
		local("apisix-https-pp", o.capture.ports.https)
	case "direct":
		local("apisix-outbound-port", o.translation.outboundPort)
		local("apisix-inbound-port", o.translation.inboundPort)
	}
	return all
}
