package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

type waitOptions struct {
	url                     string
	timeout, period, answer time.Duration
	log                     logOptions
}

func newWait(a *app) *cobra.Command {
	var o waitOptions
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait until the bridge is ready",
		Long: `Wait until the readiness port answers 200. The exit code tells whether it did in
time: this is what a pod runs after the start of its proxy, so that the
application starts when its requests can be served.`,
		Example: `  meshbridge wait
  meshbridge wait --timeout 2m --url http://localhost:15020/healthz/ready`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := o.log.logger(a.stderr)
			if err != nil {
				return usageError{err}
			}
			return o.wait(cmd.Context(), log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.url, "url", "http://localhost:15021/healthz/ready", "`URL` that answers 200 when the bridge is ready")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "`duration` after which the command fails")
	f.DurationVar(&o.period, "period", 500*time.Millisecond, "`duration` between two requests")
	f.DurationVar(&o.answer, "request-timeout", 500*time.Millisecond, "`duration` that an answer may take")
	// As pilot-agent spells them.
	for _, alias := range []struct {
		name string
		of   *time.Duration
		unit time.Duration
	}{
		{"timeoutSeconds", &o.timeout, time.Second},
		{"periodMillis", &o.period, time.Millisecond},
		{"requestTimeoutMillis", &o.answer, time.Millisecond},
	} {
		f.Var(units{alias.of, alias.unit}, alias.name, "")
		f.Lookup(alias.name).Hidden = true
	}
	o.log.add(f)
	return cmd
}

// wait asks at once, and then once in each period.
func (o *waitOptions) wait(ctx context.Context, log *slog.Logger) error {
	if o.timeout <= 0 || o.period <= 0 || o.answer <= 0 {
		return usageError{errors.New("--timeout, --period and --request-timeout must be positive")}
	}
	started := time.Now()
	deadline := time.NewTimer(o.timeout)
	defer deadline.Stop()
	period := time.NewTicker(o.period)
	defer period.Stop()
	for {
		err := o.ask(ctx)
		if err == nil {
			log.InfoContext(ctx, "ready", slog.Duration("waited", time.Since(started)))
			return nil
		}
		log.DebugContext(ctx, "not ready yet", slog.Any("error", err))
		select {
		case <-ctx.Done():
			return fmt.Errorf("interrupted while waiting: the last answer was: %w", err)
		case <-deadline.C:
			return fmt.Errorf("not ready within %s: the last answer was: %w", o.timeout, err)
		case <-period.C:
		}
	}
}

func (o *waitOptions) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, o.answer)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, o.url, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	reason, err := io.ReadAll(io.LimitReader(response.Body, 1000))
	if err != nil {
		return fmt.Errorf("%s: %w", o.url, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: HTTP %d: %s", o.url, response.StatusCode, oneLine(reason))
	}
	return nil
}

// units is a flag that counts units of time, for a duration that has a flag of its own.
type units struct {
	of   *time.Duration
	unit time.Duration
}

func (u units) String() string {
	if u.of == nil {
		return ""
	}
	return strconv.FormatInt(int64(*u.of/u.unit), 10)
}

func (u units) Set(text string) error {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return errors.New("want a whole number")
	}
	*u.of = time.Duration(n) * u.unit
	return nil
}

func (units) Type() string { return "int" }
