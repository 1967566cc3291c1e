package soak

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// timeline is what happened, in the order in which it did.
type timeline struct {
	start time.Time
	out   io.Writer

	mu     sync.Mutex
	lines  []moment // guarded by mu
	faults []fault  // guarded by mu
	stop   func()   // called at each fault; guarded by mu
}

type moment struct {
	at   time.Time
	text string
}

// fault is a promise that was not kept.
type fault struct {
	moment

	of string // the check that found it
}

func newTimeline(out io.Writer) *timeline { return &timeline{start: time.Now(), out: out} }

// note adds a line.
func (l *timeline) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(fmt.Sprintf(format, args...))
}

func (l *timeline) add(text string) moment {
	m := moment{time.Now(), text}
	l.lines = append(l.lines, m)
	fmt.Fprintln(l.out, l.line(m))
	return m
}

func (l *timeline) line(m moment) string {
	return fmt.Sprintf("%8.3fs %s", m.at.Sub(l.start).Seconds(), m.text)
}

// fail adds a fault.
func (l *timeline) fail(of, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.add("FAULT " + of + ": " + fmt.Sprintf(format, args...))
	l.faults = append(l.faults, fault{m, of})
	if l.stop != nil {
		l.stop()
	}
}

// onFault calls stop at each fault: what comes after the first says little.
func (l *timeline) onFault(stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop = stop
}

// failed tells how many faults there are.
func (l *timeline) failed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.faults)
}

// Limits of what is told of faults.
const (
	toldFaults = 10
	toldBefore = 25 * time.Second
)

// report tells of the first faults, and what came before the first.
func (l *timeline) report() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults:\n", len(l.faults))
	for _, f := range l.faults[:min(len(l.faults), toldFaults)] {
		fmt.Fprintln(&b, l.line(f.moment))
	}
	fmt.Fprintln(&b, "\nbefore the first:")
	for _, m := range l.lines {
		if before := l.faults[0].at.Sub(m.at); before >= 0 && before < toldBefore {
			fmt.Fprintln(&b, l.line(m))
		}
	}
	return b.String()
}
