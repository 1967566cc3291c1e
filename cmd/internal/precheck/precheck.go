// Package precheck looks at what a pod or a machine has for the bridge before it is started: one result for
// each thing that is needed, with what to do where it is missing. Nothing is changed.
package precheck

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// Status is how a check ended.
type Status string

// Warn is for what the bridge can do without, or what cannot be told; Fail for what keeps it from working.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Result is that of one check.
type Result struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	// Found is what there is, Do what to do about it; empty where it is OK.
	Found string `json:"found"`
	Do    string `json:"do,omitempty"`
}

// Check looks at one thing, or a few that depend on each other.
type Check func(context.Context) []Result

// Run makes the checks, in order.
func Run(ctx context.Context, checks ...Check) (results []Result) {
	for _, check := range checks {
		results = append(results, check(ctx)...)
	}
	return results
}

// Failed tells whether anything keeps the bridge from working.
func Failed(results []Result) bool {
	for _, r := range results {
		if r.Status == Fail {
			return true
		}
	}
	return false
}

// Write writes a line for each result.
func Write(w io.Writer, results []Result) error {
	for _, r := range results {
		line := fmt.Sprintf("%-4s  %-22s %s", r.Status, r.Check, r.Found)
		if r.Do != "" {
			line += ": " + r.Do
		}
		if _, err := fmt.Fprintln(w, strings.Join(strings.Split(line, "\n"), " ")); err != nil {
			return err
		}
	}
	return nil
}

func ok(check, format string, args ...any) Result {
	return Result{Check: check, Status: OK, Found: fmt.Sprintf(format, args...)}
}

func bad(status Status, check, do, format string, args ...any) Result {
	return Result{Check: check, Status: status, Found: fmt.Sprintf(format, args...), Do: do}
}

// ago is a duration for people.
func ago(d time.Duration) string { return d.Round(time.Second).String() }
