package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type requestOptions struct {
	port    uint16
	timeout time.Duration
}

func newRequest(a *app) *cobra.Command {
	var o requestOptions
	cmd := &cobra.Command{
		Use:   "request METHOD PATH [BODY]",
		Short: "Send a request to a port of the bridge on this host",
		Long: `Send a request to a port of the bridge on this host and print the body of the
answer: for probes and drains by commands, and for images without curl. The exit
code is 1 where the status of the answer is 400 or above.`,
		Example: `  meshbridge request GET config_dump
  meshbridge request GET /healthz/ready --port 15021
  meshbridge request POST drain --port 15020`,
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.send(cmd.Context(), a, args[0], args[1], strings.Join(args[2:], ""))
		},
	}
	f := cmd.Flags()
	f.Uint16Var(&o.port, "port", 15000, "`port` of this host")
	f.Uint16Var(&o.port, "debug-port", 15000, "") // as pilot-agent spells it
	f.Lookup("debug-port").Hidden = true
	f.DurationVar(&o.timeout, "timeout", time.Minute, "`duration` that the answer may take")
	return cmd
}

func (o *requestOptions) send(ctx context.Context, a *app, method, path, body string) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	target, err := url.Parse("http://" + net.JoinHostPort("localhost", strconv.Itoa(int(o.port))) + "/" + strings.TrimPrefix(path, "/"))
	if err != nil {
		return usageError{err}
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), strings.NewReader(body))
	if err != nil {
		return usageError{err}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	answered := a.isPilotAgent && response.StatusCode == http.StatusNotFound
	if response.StatusCode >= http.StatusBadRequest && !answered {
		return fmt.Errorf("%s: HTTP %d: %s", target, response.StatusCode, oneLine(answer))
	}
	// Nothing but the answer: it is parsed by programs.
	_, err = a.stdout.Write(append(bytes.TrimSuffix(answer, []byte("\n")), '\n'))
	return err
}

// oneLine is text for an error.
func oneLine(text []byte) string { return strings.Join(strings.Fields(string(text)), " ") }
