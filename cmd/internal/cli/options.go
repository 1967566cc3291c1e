package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meshbridge/cmd/internal/logscope"
	"meshbridge/gateway"
)

// withConfig resolves the command's flags from environment and file, answers --print-config, and
// runs the command.
func withConfig(a *app, cmd *cobra.Command, run func() error) error {
	from, err := resolve(cmd.Flags(), a.getenv)
	if err != nil {
		return usageError{err}
	}
	if show, err := cmd.Flags().GetBool(printConfigFlag); err != nil || show {
		return errors.Join(err, printConfig(a.stdout, cmd.Flags(), from))
	}
	return run()
}

// serveOptions are common to the commands that serve the etcd port.
type serveOptions struct {
	history historyOptions
	tls     tlsOptions
	limits  limitOptions
	auth    authOptions
	log     logOptions
}

func (o *serveOptions) add(f *pflag.FlagSet) {
	o.history.add(f)
	o.tls.add(f)
	o.limits.add(f)
	o.auth.add(f)
	o.log.add(f)
}

// resolve makes what the options describe; the TLS configuration is nil without TLS.
func (o *serveOptions) resolve(stderr io.Writer) (*slog.Logger, *tls.Config, error) {
	log, err := o.log.logger(stderr)
	if err != nil {
		return nil, nil, usageError{err}
	}
	config, err := o.tls.config(log)
	if err != nil {
		return nil, nil, usageError{err}
	}
	return log, config, nil
}

// logOptions choose what is logged, and how, to stderr.
type logOptions struct{ level, format string }

func (o *logOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.level, "log-level", "info", "`LEVEL[,SCOPE:LEVEL...]`, levels: trace, debug, info, warn, error, critical, off;\n"+
		"scopes: "+strings.Join(logscope.Names(), ", "))
	f.StringVar(&o.format, "log-format", "auto", "`auto|text|json`; auto is text on a terminal, JSON elsewhere")
}

func (o *logOptions) logger(w io.Writer) (*slog.Logger, error) {
	var handler slog.Handler
	format := o.format
	if format == "auto" {
		if format = "json"; isTerminal(w) {
			format = "text"
		}
	}
	switch format {
	case "text":
		handler = slog.NewTextHandler(w, logscope.Everything())
	case "json":
		handler = slog.NewJSONHandler(w, logscope.Everything())
	default:
		return nil, fmt.Errorf("--log-format %q: want auto, text or json", o.format)
	}
	spec, err := logscope.ParseSpec(o.level)
	if err != nil {
		return nil, fmt.Errorf("--log-level %q: %w", o.level, err)
	}
	log := slog.New(logscope.NewHandler(handler, spec.Default))
	if err := spec.Apply(logscope.LevelsOf(log)); err != nil {
		return nil, fmt.Errorf("--log-level %q: %w", o.level, err)
	}
	return log, nil
}

// isTerminal tells whether a person is likely to read what is written.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// historyOptions bound the history that watchers can resume from.
type historyOptions struct {
	revisions int64
	age       time.Duration
}

func (o *historyOptions) add(f *pflag.FlagSet) {
	f.Int64Var(&o.revisions, "keep-revisions", 10_000, "least `number` of revisions that watchers can resume from; 0 keeps all")
	f.DurationVar(&o.age, "keep-for", 5*time.Minute, "least `duration` for which watchers can resume from a revision")
}

// keepFor is the age that goes with revisions: keeping all has no age.
func (o *historyOptions) keepFor() time.Duration {
	if o.revisions == 0 {
		return 0
	}
	return o.age
}

// tlsOptions secure the etcd port.
type tlsOptions struct{ cert, key, clientCA string }

func (o *tlsOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.cert, "listen-cert", "", "certificate `file` of the etcd port; TLS is on when it is set. The files are read again when they change")
	f.StringVar(&o.key, "listen-key", "", "private key `file` of the etcd port")
	f.StringVar(&o.clientCA, "listen-client-ca", "", "CA `file`: clients of the etcd port must show a certificate that it signed")
}

// config returns nil without TLS.
func (o *tlsOptions) config(log *slog.Logger) (*tls.Config, error) {
	if o.cert == "" && o.key == "" && o.clientCA == "" {
		return nil, nil //nolint:nilnil // nil is what crypto/tls users call "no TLS"
	}
	if o.cert == "" || o.key == "" {
		return nil, errors.New("--listen-cert and --listen-key go together, and --listen-client-ca needs both")
	}
	config, err := gateway.TLSFiles{Cert: o.cert, Key: o.key, ClientCA: o.clientCA}.Config(log)
	if err != nil {
		return nil, fmt.Errorf("--listen-cert, --listen-key, --listen-client-ca: %w", err)
	}
	return config, nil
}
