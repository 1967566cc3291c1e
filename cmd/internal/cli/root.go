package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1 // the command ran and failed, or found what it reports as errors
	exitUsage = 2 // the command line, environment or configuration file is wrong
	// exitAgent is exitError under the name pilot-agent, which ends so.
	exitAgent = 255
)

// app is what every command needs of its surroundings.
type app struct {
	version        string
	stdout, stderr io.Writer
	environ        func() []string
	addresses      func() ([]net.Addr, error) // of the interfaces
	// args is the command line after the program's name; isPilotAgent is set where that name is the one of
	// Istio's agent.
	args         []string
	isPilotAgent bool
	signals      signals
	// adoptGRPC makes a logger that of gRPC, for the whole process; nil does not.
	adoptGRPC func(*slog.Logger)
}

// getenv looks a variable up; empty is unset.
func (a *app) getenv(name string) string {
	for _, v := range a.environ() {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// usageError is an error of the one who typed the command.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// errReported ends a command whose output has already said what is wrong.
var errReported = errors.New("reported")

// Execute runs the command line, of which the first element is the program's name, and returns the exit
// code. The first SIGTERM, SIGINT or SIGQUIT ends it gracefully, the second at once; the third does not
// return.
func Execute(version string, argv []string, stdout, stderr io.Writer) int {
	a := &app{
		version: version, stdout: stdout, stderr: stderr, environ: os.Environ, addresses: net.InterfaceAddrs,
		isPilotAgent: filepath.Base(argv[0]) == pilotAgent, adoptGRPC: logGRPC,
	}
	received, end := notify()
	defer end()
	ctx, stop := a.signals.watch(received, func() { os.Exit(exitError) })
	defer stop()
	return execute(ctx, a, argv[1:])
}

func execute(ctx context.Context, a *app, args []string) int {
	a.args = args
	root := newRoot(a) //nolint:contextcheck // commands get theirs from cobra
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintf(a.stderr, "%s: %v\n", root.Name(), err)
	}
	_, usage := errors.AsType[usageError](err)
	coded, hasCode := errors.AsType[codedError](err)
	switch {
	case hasCode:
		return coded.code
	case a.isPilotAgent:
		return exitAgent
	case usage:
		return exitUsage
	default:
		return exitError
	}
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "meshbridge",
		Short: "Make an unmodified Apache APISIX a data plane of an unmodified Istio",
		Long: `meshbridge subscribes to istiod over xDS, translates what it receives into APISIX
routes and upstreams, and serves them over the etcd v3 API, so that APISIX
believes it talks to etcd.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newRun(a), newTranslate(a), newExplain(a), newEtcd(a), newAPISIXConfig(a), newVersion(a),
		newWait(a), newRequest(a), newProxy(a),
		newIptables(a), newCleanupIptables(a), newIstioIptables(a), newIstioCleanIptables(a), newMeshAgent(a),
		newPrecheck(a), newDump(a),
	)
	if a.isPilotAgent {
		asPilotAgent(root)
	}
	for _, c := range append(root.Commands(), root) {
		check := c.Args
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	return root
}
