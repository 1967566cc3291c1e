package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"meshbridge/cmd/internal/authn"
	"meshbridge/cmd/internal/explain"
	"meshbridge/translate"
)

type explainOptions struct {
	admin, file, output string
	method, direction   string
	chain               string
	headers             []string
	node                nodeOptions
	translation         translationOptions
	extend              offlineExtendOptions
}

func newExplain(a *app) *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain URL",
		Short: "Which route and upstream would APISIX choose, and why not the others?",
		Long: `Explain what APISIX does with a request: on a running bridge, through its admin
port, or offline for a file or directory with xDS.`,
		Example: `  meshbridge explain http://reviews:9080/ -H 'end-user: jason'
  meshbridge explain https://app.example.com:8443/cart -f testdata/istiod/gateway-tls/xds --profile gateway
  meshbridge explain http://10.1.0.13:9080/ --direction inbound`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withConfig(a, cmd, func() error { return runExplain(cmd.Context(), a, o, args[0]) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.admin, "admin", "127.0.0.1:15000", "admin `address` of the running bridge")
	f.StringVarP(&o.file, "file", "f", "", "explain the xDS in this file or directory instead of a running bridge: `path`")
	f.StringVarP(&o.method, "request", "X", "GET", "request `method`")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "request `header`, like 'end-user: jason'; may be repeated")
	f.StringVar(&o.direction, "direction", "", "`outbound|inbound|gateway`; default: outbound or gateway")
	f.StringVar(&o.chain, "chain", "", "`key` of the chain on which the request arrives; default: by URL")
	f.StringVarP(&o.output, "output", "o", "text", "`text|json`")
	f.StringVar(&o.node.id, "node-id", "", "with --file: xDS node `id` of the proxy that the resources are for")
	o.translation.add(f)
	o.extend.add(f)
	addConfigFlags(cmd)
	return cmd
}

func runExplain(ctx context.Context, a *app, o explainOptions, url string) error {
	q := explain.Query{URL: url, Method: o.method, Chain: o.chain, Direction: translate.Direction(o.direction)}
	switch q.Direction {
	case "", translate.Outbound, translate.Inbound, translate.Edge:
	default:
		return usageError{fmt.Errorf("--direction %q: want outbound, inbound or gateway", o.direction)}
	}
	if o.output != "text" && o.output != "json" {
		return usageError{fmt.Errorf("--output %q: want text or json", o.output)}
	}
	var err error
	if q.Headers, err = parseHeaders(o.headers); err != nil {
		return usageError{err}
	}
	answer, err := ask(ctx, a, o, q)
	if err != nil {
		return err
	}
	if o.output == "json" {
		encoder := json.NewEncoder(a.stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(answer)
	}
	_, err = io.WriteString(a.stdout, answer.Text())
	return err
}

func parseHeaders(list []string) (map[string][]string, error) {
	headers := map[string][]string{}
	for _, h := range list {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, fmt.Errorf("--header %q: want 'NAME: VALUE'", h)
		}
		name = strings.ToLower(strings.TrimSpace(name))
		headers[name] = append(headers[name], strings.TrimSpace(value))
	}
	return headers, nil
}

// ask answers the query from the file, or has the running bridge answer it.
func ask(ctx context.Context, a *app, o explainOptions, q explain.Query) (explain.Answer, error) {
	if o.file == "" {
		return askBridge(ctx, o.admin, q)
	}
	state, profile, rejected, err := translateFile(ctx, a, o.file, o.node, o.translation, o.extend, withoutInputs)
	if err != nil {
		return explain.Answer{}, err
	}
	for _, r := range rejected {
		fmt.Fprintf(a.stderr, "warning: %s: is left out [rejected]\n", r)
	}
	tokens := authn.New(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	tokens.Set(state.Authentications())
	return explain.Explain(explain.World{Profile: profile, Chains: state.Chains(), Objects: state.Objects(), Ask: tokens.Ask}, q)
}

func askBridge(ctx context.Context, admin string, q explain.Query) (explain.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := json.Marshal(q)
	if err != nil {
		return explain.Answer{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+admin+"/explain", bytes.NewReader(body))
	if err != nil {
		return explain.Answer{}, usageError{fmt.Errorf("--admin %q: %w", admin, err)}
	}
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		return explain.Answer{}, fmt.Errorf("no bridge answers on --admin %s (use --file for recorded xDS): %w", admin, err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return explain.Answer{}, err
	}
	if response.StatusCode != http.StatusOK {
		return explain.Answer{}, fmt.Errorf("the bridge says: %s", strings.TrimSpace(string(data)))
	}
	var answer explain.Answer
	if err := json.Unmarshal(data, &answer); err != nil {
		return explain.Answer{}, fmt.Errorf("answer of the bridge: %w", err)
	}
	return answer, nil
}
