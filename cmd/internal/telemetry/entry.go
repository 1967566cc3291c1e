package telemetry

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"meshbridge/translate/accesslog"
)

// Entries takes entries of access logs. It is safe for concurrent use, and never waits.
type Entries interface {
	// Write hands an entry to those of the logs that want it.
	Write(logs []*accesslog.Log, e *accesslog.Entry)
}

// logged is what the entries of a series have in common: what they are about, and the logs of its chain.
type logged struct {
	found *resolved // nil where it is not known
	logs  []*accesslog.Log
}

// log writes the entries of a report, a line each. of is about the series of the report.
func (r *Requests) log(ctx context.Context, now time.Time, p *report, of []logged, lines []byte) {
	var refused, unattributed int
	var reason error
	for n := 0; len(lines) > 0; n++ {
		if n == maxEntries {
			refused += 1 + bytes.Count(lines, []byte("\n"))
			break
		}
		var line []byte
		line, lines, _ = bytes.Cut(lines, []byte("\n"))
		e, number, err := parseEntry(line, p.Series)
		switch {
		case err != nil:
			refused++
			reason = cmp.Or(reason, err)
		case of[number].found == nil:
			unattributed++
		case len(of[number].logs) > 0:
			r.entries.Write(of[number].logs, of[number].found.entry(now, e, &p.Series[number]))
		}
	}
	r.entriesLost.Add(float64(refused) + float64(p.LostEntries))
	r.entriesUnattributed.Add(float64(unattributed))
	if reason != nil {
		r.logger.WarnContext(ctx, "entries of a report about requests are refused", slog.Int("entries", refused), slog.Any("error", reason))
	}
}

// entry makes an entry of what is reported.
func (r *resolved) entry(now time.Time, e reportedEntry, s *reportedSeries) *accesslog.Entry {
	h := &accesslog.HTTP{
		Authority: e[columnAuthority], Scheme: e[columnScheme],
		Received: e.number(columnReceived), Sent: e.number(columnSent),
		Attempts:  e.attempts(),
		Connected: e.took(columnConnected), Answered: e.took(columnAnswered), Ended: e.took(columnEnded),
	}
	h.Method, h.Path, h.Protocol = e.requestLine()
	if s.Status != statusClientClosed {
		h.Status = s.Status
	}
	if s.GRPC != "-" {
		h.GRPCStatus = s.GRPC
	}
	h.RequestHeaders, h.ResponseHeaders = s.headers(e, h.Answered)
	out := &accesslog.Entry{
		Start: e.start(now), Duration: milliseconds(e.number(columnDuration)),
		Chain: r.chain.Key, Listener: r.chain.Listener,
		Route: r.route, Cluster: r.clusterKey.Name, ClusterStat: r.clusterStat,
		Upstream:   r.upstream,
		ServerName: e[columnServerName],
		MutualTLS:  s.Principal != "", Principal: s.Principal,
		Connection: uint64(e.number(columnConnection)),
		// What comes after a body that is shorter than announced is the next request.
		Received: min(e.number(columnReceivedBody), h.Received), Sent: e.number(columnSentBody),
		UpstreamReceived: number(e.last(columnUpstreamReceived)), UpstreamSent: number(e.last(columnUpstreamSent)),
		HTTP: h,
	}
	if s.GRPC != "" && e[columnReceivedBody] == "" {
		out.Received = h.Received // nginx does not say how much of that is the body of a stream without length
	}
	if r.labels[labelResponseFlags] != "-" {
		out.Flags = r.labels[labelResponseFlags]
	}
	out.Source, out.Direct, out.Destination = e.addresses()
	if r.toOriginal {
		out.Upstream = out.Destination
	}
	if out.MutualTLS {
		out.OwnPrincipal = r.principal
	}
	// Capture, which terminates TLS in front of nginx, tells of it.
	if r.chain.TLS && (out.MutualTLS || out.ServerName != "") {
		h.Scheme = "https"
	}
	return out
}

func milliseconds(n int64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}

// serviceTime is a header that Envoy adds to responses, and APISIX does not.
const serviceTime = "x-envoy-upstream-service-time"

// headers are those of an entry, by the series' names.
func (s *reportedSeries) headers(e reportedEntry, answered time.Duration) (request, response map[string]string) {
	for i, name := range s.Headers {
		value := e[int(columns)+i]
		name, ofResponse := strings.CutPrefix(name, responseMark)
		if ofResponse && name == serviceTime && value == "" && answered >= 0 {
			value = strconv.FormatInt(answered.Milliseconds(), 10)
		}
		if value == "" {
			continue
		}
		to := &request
		if ofResponse {
			to = &response
		}
		if *to == nil {
			*to = make(map[string]string, len(s.Headers))
		}
		(*to)[name] = value
	}
	return request, response
}
