package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// bounds are the upper bounds of histograms: Envoy's, which Istio leaves as they are.
func bounds() [19]float64 {
	return [...]float64{
		0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000,
	}
}

// buckets is the number of buckets: one for each bound, and one above.
const buckets = 20

// Limits of a report: what a process of APISIX never exceeds, however its clients behave.
const (
	maxReportSize   = 32 << 20
	maxReportSeries = 20_000
	maxText         = 512
	maxMetadata     = 8 << 10
	maxHeaders      = 1024
)

// report is what a process of APISIX has counted since the one before.
type report struct {
	// Worker is the process, and Sequence the number of its report.
	Worker   string `json:"worker"`
	Sequence uint64 `json:"sequence"`
	// Folded is how many requests were counted without what their clients said of themselves.
	Folded uint64 `json:"folded"`
	// LostEntries is how many entries there was no room for.
	LostEntries uint64     `json:"lost_entries"`
	Series      seriesList `json:"series"`
}

// seriesList is bounded while it is read: what is a few bytes in JSON may be hundreds in memory.
type seriesList []reportedSeries

// UnmarshalJSON reads an array.
func (l *seriesList) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if first, err := d.Token(); err != nil || first != json.Delim('[') {
		return errors.New("the series are no array")
	}
	for d.More() {
		if len(*l) == maxReportSeries {
			return fmt.Errorf("more than %d series", maxReportSeries)
		}
		var s reportedSeries
		if err := d.Decode(&s); err != nil {
			return fmt.Errorf("series %d: %w", len(*l), err)
		}
		*l = append(*l, s)
	}
	return nil
}

// request is what requests have in common that are counted together.
type request struct {
	Route     string `json:"route"` // or chainPrefix and the chain, where it found none
	Upstream  string `json:"upstream"`
	Node      string `json:"node"`      // of the last attempt, "address:port"
	Status    int    `json:"status"`    // as the client got it
	Failure   string `json:"failure"`   // choose, connect or answer; with + where several endpoints were tried
	GRPC      string `json:"grpc"`      // the status; "-" where there was none, empty for other requests
	Principal string `json:"principal"` // of the client
	Peer      string `json:"peer"`      // the x-envoy-peer-metadata-id of the client, or of the endpoint's answer
	Host      string `json:"host"`      // where it may be all that is known of the destination
}

type reportedSeries struct {
	request
	// Headers are those that the entries of the series have, of responses with responseMark before the name.
	Headers []string `json:"headers"`
	// Metadata is the x-envoy-peer-metadata of the first request or answer.
	Metadata string `json:"metadata"`
	Count    uint64 `json:"count"`
	// Milliseconds and bytes.
	Duration distribution `json:"duration"`
	Received distribution `json:"received"`
	Sent     distribution `json:"sent"`
}

// distribution is a histogram.
type distribution struct {
	sum    float64
	counts [buckets]uint64
}

// UnmarshalJSON reads the sum and the buckets, in one array.
func (d *distribution) UnmarshalJSON(data []byte) error {
	var values []float64
	if err := json.Unmarshal(data, &values); err != nil {
		return err
	}
	if len(values) != buckets+1 {
		return fmt.Errorf("a distribution has %d values, not %d", buckets+1, len(values))
	}
	d.sum = values[0]
	for i, v := range values[1:] {
		if v < 0 || v > math.MaxInt32 || v != math.Trunc(v) {
			return fmt.Errorf("%g requests in a bucket", v)
		}
		d.counts[i] = uint64(v)
	}
	return nil
}

func (d *distribution) add(o *distribution) {
	d.sum += o.sum
	for i, c := range o.counts {
		d.counts[i] += c
	}
}

func (d *distribution) count() (n uint64) {
	for _, c := range d.counts {
		n += c
	}
	return n
}

// parseReport reads a report, and returns its other lines: an entry each. Whoever is on this host could have sent
// it, so that nothing in it is trusted.
func parseReport(data []byte) (r report, entries []byte, err error) {
	first, entries, _ := bytes.Cut(data, []byte("\n"))
	if err := json.Unmarshal(first, &r); err != nil {
		return r, nil, err
	}
	if r.Worker == "" || len(r.Worker) > 64 || r.Sequence == 0 {
		return r, nil, errors.New("no worker, or no sequence")
	}
	for i := range r.Series {
		if err := r.Series[i].validate(); err != nil {
			return r, nil, fmt.Errorf("series %d: %w", i, err)
		}
	}
	return r, entries, nil
}

func (s *reportedSeries) validate() error {
	for _, text := range []string{s.Route, s.Upstream, s.Node, s.Failure, s.GRPC, s.Principal, s.Peer, s.Host} {
		if len(text) > maxText || !utf8.ValidString(text) {
			return errors.New("a text is too long, or not UTF-8")
		}
	}
	switch {
	case len(s.Metadata) > maxMetadata:
		return errors.New("the metadata is too long")
	case len(s.Headers) > maxHeaders:
		return fmt.Errorf("%d headers", len(s.Headers))
	case s.Status < 0 || s.Status > 999:
		return fmt.Errorf("status %d", s.Status)
	case s.Count == 0:
		return errors.New("counts nothing")
	}
	for _, d := range []*distribution{&s.Duration, &s.Received, &s.Sent} {
		if d.count() != s.Count || d.sum < 0 || math.IsNaN(d.sum) || d.sum > 1e18 {
			return errors.New("a distribution is not of as many requests as were counted")
		}
	}
	return nil
}
