package console

import (
	"fmt"
	"strconv"
	"strings"
)

// dot writes the graphs for Graphviz.
func (v graphView) dot() string {
	var b strings.Builder
	b.WriteString("digraph meshbridge {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\", fontsize=10];\n")
	for i, g := range v.graphs() {
		for _, n := range g.Nodes {
			style := ""
			if n.Bad {
				style = ", color=red"
			}
			fmt.Fprintf(&b, "  %s [label=%s%s];\n", dotText(graphID(i, n.ID)), dotText(n.Label+"\n"+n.Detail), style)
		}
		for _, e := range g.Edges {
			fmt.Fprintf(&b, "  %s -> %s [label=%s];\n", dotText(graphID(i, e.From)), dotText(graphID(i, e.To)), dotText(e.Label))
		}
	}
	b.WriteString("}\n")
	return b.String()
}

// graphID is apart for each graph.
func graphID(graph int, id string) string { return strconv.Itoa(graph) + " " + id }

// dotText quotes a text. In Graphviz's strings, a backslash that is none is an escape of its own.
func dotText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// mermaid writes the graphs as a flowchart.
func (v graphView) mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	for i, g := range v.graphs() {
		name := func(id string) string { return fmt.Sprintf("n%d_%d", i, g.at[id]) }
		for _, n := range g.Nodes {
			fmt.Fprintf(&b, "  %s[\"%s\"]\n", name(n.ID), mermaidText(strings.TrimSpace(n.Label+" "+n.Detail)))
		}
		for _, e := range g.Edges {
			if e.Label == "" {
				fmt.Fprintf(&b, "  %s --> %s\n", name(e.From), name(e.To))
			} else {
				fmt.Fprintf(&b, "  %s -->|\"%s\"| %s\n", name(e.From), mermaidText(e.Label), name(e.To))
			}
		}
	}
	return b.String()
}

// mermaidText replaces what ends a text or is markup in it, in Mermaid's own way.
func mermaidText(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\"#<>&;`\\", r) || r < ' ' {
			fmt.Fprintf(&b, "#%d;", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (v graphView) graphs() []*graph {
	var all []*graph
	for _, g := range []*graph{v.Outbound, v.Inbound} {
		if g != nil {
			all = append(all, g)
		}
	}
	return all
}
