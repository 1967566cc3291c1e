// Command bench compares capture with HAProxy in TCP mode and with a direct connection, side by side in
// one run, and prints a Markdown table.
//
//	go run ./capture/bench                    about a minute
//	go run ./capture/bench -rounds 5 -per 5s  longer, for steadier figures
//	go run ./capture/bench -tls               both terminate TLS (1.3, P-256); wrk has no client certificate
//
// The client is wrk, the backend a server of our own; all are processes on this machine. A round measures
// each in turn, and the table has the medians, so that what else the machine does touches all alike. CPU
// is what the proxy's process uses, user and system.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"
)

// options are the command line.
type options struct {
	rounds      int
	per         time.Duration
	connections int
	idle        int
	role        string
	listen, to  string
	tls         bool
	certificate string // file, with its key; empty is no TLS
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.IntVar(&o.rounds, "rounds", 3, "how often each is measured")
	flags.DurationVar(&o.per, "per", 3*time.Second, "duration of one measurement")
	flags.IntVar(&o.connections, "connections", 64, "connections of the client")
	flags.IntVar(&o.idle, "idle", 2000, "idle connections whose memory is measured; 0 is not at all")
	flags.StringVar(&o.role, "role", "", "run as \"backend\" or \"capture\" (used by the command itself)")
	flags.StringVar(&o.listen, "listen", "", "address of the role")
	flags.StringVar(&o.to, "to", "", "backend of the role")
	flags.BoolVar(&o.tls, "tls", false, "terminate TLS")
	flags.StringVar(&o.certificate, "certificate", "", "certificate and key of the role")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch o.role {
	case "backend":
		return serveBackend(ctx, o.listen)
	case "capture":
		return serveCapture(ctx, o.listen, o.to, o.certificate)
	default:
		return o.compare(ctx, os.Stdout)
	}
}

// compare measures and prints.
func (o *options) compare(ctx context.Context, out io.Writer) error {
	if _, err := exec.LookPath("wrk"); err != nil {
		return fmt.Errorf("the client is missing: %w", err)
	}
	if o.tls {
		dir, err := os.MkdirTemp("", "bench")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if o.certificate, err = writeCertificate(dir); err != nil {
			return err
		}
	}
	backend, err := startRole(ctx, "backend", "", "")
	if err != nil {
		return err
	}
	defer backend.stop()
	candidates := []*process{{name: "direct", address: backend.address}}
	if haproxy, err := startHAProxy(ctx, backend.address, o.certificate); err != nil {
		_, _ = fmt.Fprintln(out, "HAProxy is left out:", err)
	} else {
		defer haproxy.stop()
		candidates = append(candidates, haproxy)
	}
	capture, err := startRole(ctx, "capture", backend.address, o.certificate)
	if err != nil {
		return err
	}
	defer capture.stop()
	candidates = append(candidates, capture)

	if o.idle > 0 {
		if err := o.compareIdle(ctx, out, candidates); err != nil {
			return err
		}
	}
	for _, load := range []struct{ name, header string }{
		{"small requests, keep-alive", ""},
		{"small requests, a connection each", "Connection: close"},
	} {
		results := make(map[*process][]result)
		for range o.rounds {
			for _, candidate := range candidates {
				r, err := o.measure(ctx, candidate, load.header)
				if err != nil {
					return fmt.Errorf("%s: %w", candidate.name, err)
				}
				results[candidate] = append(results[candidate], r)
			}
		}
		_, _ = fmt.Fprintf(out, "\n%s, %d connections\n\n| | requests/s | CPU per request | p99 |\n|---|---:|---:|---:|\n", load.name, o.connections)
		for _, candidate := range candidates {
			r := median(results[candidate])
			_, _ = fmt.Fprintf(out, "| %s | %.0f | %s | %s |\n", candidate.name, r.rate, microseconds(r.cpu), r.p99)
		}
	}
	return nil
}

func microseconds(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f µs", float64(d)/float64(time.Microsecond))
}

// result is one measurement.
type result struct {
	rate float64 // requests per second
	cpu  time.Duration
	p99  string
}

// median returns the medians of what can be compared; the latency is that of the median rate.
func median(results []result) result {
	slices.SortFunc(results, func(a, b result) int { return int(a.rate - b.rate) })
	m := results[len(results)/2]
	cpus := make([]time.Duration, 0, len(results))
	for _, r := range results {
		cpus = append(cpus, r.cpu)
	}
	slices.Sort(cpus)
	m.cpu = cpus[len(cpus)/2]
	return m
}

// measure loads a candidate.
func (o *options) measure(ctx context.Context, p *process, header string) (result, error) {
	args := []string{"-t1", fmt.Sprintf("-c%d", o.connections), fmt.Sprintf("-d%d", int(o.per.Seconds())), "--latency"}
	if header != "" {
		args = append(args, "-H", header)
	}
	before, err := p.cpu()
	if err != nil {
		return result{}, err
	}
	output, err := exec.CommandContext(ctx, "wrk", append(args, p.scheme()+p.address+"/")...).CombinedOutput() //nolint:gosec // a client of our own
	if err != nil {
		return result{}, fmt.Errorf("wrk: %w: %s", err, output)
	}
	after, err := p.cpu()
	if err != nil {
		return result{}, err
	}
	return readWrk(string(output), after-before)
}

// readWrk reads wrk's report.
func readWrk(report string, used time.Duration) (result, error) {
	var r result
	requests := 0
	for line := range strings.Lines(report) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[0] == "99%":
			r.p99 = fields[1]
		case len(fields) == 2 && fields[0] == "Requests/sec:":
			_, _ = fmt.Sscan(fields[1], &r.rate)
		case len(fields) > 3 && fields[1] == "requests" && fields[2] == "in":
			_, _ = fmt.Sscan(fields[0], &requests)
		case strings.HasPrefix(strings.TrimSpace(line), "Non-2xx"):
			return r, fmt.Errorf("wrk: %s", strings.TrimSpace(line))
		}
	}
	if requests == 0 {
		return r, fmt.Errorf("wrk: no requests in %q", report)
	}
	r.cpu = used / time.Duration(requests)
	return r, nil
}
