package cli

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type dumpOptions struct {
	admin, output string
	timeout       time.Duration
}

func newDump(a *app) *cobra.Command {
	var o dumpOptions
	cmd := &cobra.Command{
		Use:   "dump",
		Short: "Write the state of a running bridge into one file, to attach to a report",
		Long: `Write the state of a running bridge into one file: what istiod sent, what APISIX
was given, diagnostics, versions, metrics, goroutines. Private keys and other
secrets are left out of it; names and addresses of the mesh are not.`,
		Example: `  meshbridge dump
  meshbridge dump -o /tmp/report.tar.gz
  kubectl exec POD -c istio-proxy -- meshbridge dump -o - > report.tar.gz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), a) },
	}
	f := cmd.Flags()
	f.StringVar(&o.admin, "admin", "127.0.0.1:15000", "admin `address` of the bridge")
	f.StringVarP(&o.output, "output", "o", "", "`file` to write, - for stdout; default: meshbridge-dump-TIME.tar.gz")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "`duration` that each part may take")
	return cmd
}

func (o *dumpOptions) run(ctx context.Context, a *app) error {
	now := time.Now().UTC()
	// What answers nothing is no reason to write a file.
	if _, err := o.get(ctx, "/version"); err != nil {
		return fmt.Errorf("no bridge answers on --admin %s: %w", o.admin, err)
	}
	if o.output == "-" {
		return o.write(ctx, a.stdout, a.stderr, now)
	}
	name := o.output
	if name == "" {
		name = "meshbridge-dump-" + now.Format("20060102T150405Z") + ".tar.gz"
	}
	// For its owner alone: it tells much about the mesh.
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	if err := errors.Join(o.write(ctx, file, a.stderr, now), file.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, name)
	return err
}

// write writes the archive. A part that cannot be had is named in it, and on stderr, and the others are
// written.
func (o *dumpOptions) write(ctx context.Context, w, complaints io.Writer, now time.Time) error {
	compressed := gzip.NewWriter(w)
	archive := tar.NewWriter(compressed)
	var missing strings.Builder
	add := func(name string, data []byte) error {
		header := &tar.Header{Name: "meshbridge-dump/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: now}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := archive.Write(data)
		return err
	}
	for _, f := range dumpFiles() {
		data, err := o.get(ctx, f.path)
		if err != nil {
			fmt.Fprintf(&missing, "%s: %v\n", f.name, err)
			continue
		}
		if err := add(f.name, data); err != nil {
			return fmt.Errorf("dump: %s: %w", f.name, err)
		}
	}
	if missing.Len() > 0 {
		if err := add("missing.txt", []byte(missing.String())); err != nil {
			return fmt.Errorf("dump: %w", err)
		}
		fmt.Fprintf(complaints, "meshbridge: not in the dump:\n%s", missing.String())
	}
	return errors.Join(archive.Close(), compressed.Close())
}

func (o *dumpOptions) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+o.admin+path, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP %d: %s", response.StatusCode, oneLine(data))
	}
	return data, nil
}

// dumpFiles are what a dump holds, and where on the admin port it comes from.
func dumpFiles() []struct{ name, path string } {
	return []struct{ name, path string }{
		{"version.json", "/version"},
		{"server_info.json", "/server_info"},
		{"config_dump.json", "/config_dump?include_eds=true"},
		{"init_dump.json", "/init_dump"},
		{"clusters.json", "/clusters?format=json"},
		{"listeners.json", "/listeners?format=json"},
		{"certs.json", "/certs"},
		{"objects.json", "/objects"},
		{"diagnostics.json", "/diagnostics"},
		{"metrics.txt", "/stats/prometheus"},
		{"logging.txt", "/logging"},
		{"memory.json", "/memory"},
		{"goroutines.txt", "/debug/pprof/goroutine?debug=2"},
		{"heap.pprof", "/debug/pprof/heap"},
	}
}
