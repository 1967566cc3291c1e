package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// table is a Markdown table.
type table struct {
	title  string
	header []string
	rows   [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the table with aligned columns.
func (t *table) print() {
	widths := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	line := func(cells []string) {
		var b strings.Builder
		for i, cell := range cells {
			fmt.Fprintf(&b, "| %s%s ", cell, strings.Repeat(" ", widths[i]-len([]rune(cell))))
		}
		fmt.Println(b.String() + "|")
	}
	fmt.Printf("### %s\n\n", t.title)
	line(t.header)
	rule := make([]string, len(widths))
	for i, w := range widths {
		rule[i] = strings.Repeat("-", w)
	}
	line(rule)
	for _, row := range t.rows {
		line(row)
	}
	fmt.Println()
}

// percentile returns the value below which p percent of the samples lie.
func percentile(samples []time.Duration, p float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*p/100))]
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }

func p50p99(samples []time.Duration) string {
	return millis(percentile(samples, 50)) + " / " + millis(percentile(samples, 99))
}

func micros(total time.Duration, n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(total.Nanoseconds())/float64(n)/1000)
}

func megabytes(b int64) string { return fmt.Sprintf("%.0f", float64(b)/(1<<20)) }

func rate(n int, d time.Duration) string { return fmt.Sprintf("%.0f", float64(n)/d.Seconds()) }
