package console

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
)

// Sizes of a drawing, in pixels.
const (
	nodeHeight, nodeGap  = 40, 10
	columnGap            = 44
	drawingMargin        = 8
	characterWidth       = 7 // of a label, about
	columnTitle          = 26
	smallCharacterWidth  = 6
	labelInset, textLine = 8, 16
)

// drawing is a graph with places.
type drawing struct {
	Width, Height int
	Title         string
	Columns       []drawnColumn
	Nodes         []drawnNode
	Edges         []drawnEdge
	// Alone tells that it is a document of its own.
	Alone bool
	// Rows are the same as text.
	Rows []graphRow
	// Omitted is how many nodes are left out.
	Omitted int
}

type drawnColumn struct {
	X     int
	Title string
}

type drawnNode struct {
	graphNode

	X, Y, Width, Height int
	// Short and ShortDetail are what fits.
	Short, ShortDetail string
	TextX, LabelY      int
	DetailY            int
}

type drawnEdge struct {
	Path, Label    string
	LabelX, LabelY int
}

// graphRow is one edge as text.
type graphRow struct{ From, To, Label, Detail string }

func columnWidth(kind string) int {
	return map[string]int{nodeListener: 170, nodeHost: 230, nodeRoute: 190, nodeCluster: 260, nodeEndpoint: 170}[kind]
}

// draw places the nodes in columns, each at the height of what it leads to.
func (g *graph) draw(title string) *drawing {
	if g == nil {
		return nil
	}
	d := &drawing{Title: title, Omitted: g.Omitted}
	byColumn := map[string][]int{}
	for i, n := range g.Nodes {
		byColumn[n.Kind] = append(byColumn[n.Kind], i)
	}
	next := g.successors()
	place := make([]int, len(g.Nodes)) // the top of each node
	x := map[string]int{}
	left := drawingMargin
	for _, kind := range columns() {
		if len(byColumn[kind]) == 0 {
			continue
		}
		x[kind] = left
		d.Columns = append(d.Columns, drawnColumn{left, kind})
		left += columnWidth(kind) + columnGap
	}
	d.Width = left - columnGap + drawingMargin
	for _, kind := range slices.Backward(columns()) {
		top := columnTitle
		for _, i := range byColumn[kind] {
			if wish := middle(next[i], place); wish > top {
				top = wish
			}
			place[i] = top
			top += nodeHeight + nodeGap
		}
		d.Height = max(d.Height, top+drawingMargin)
	}
	for i, n := range g.Nodes {
		d.Nodes = append(d.Nodes, drawnNode{
			graphNode: n, X: x[n.Kind], Y: place[i], Width: columnWidth(n.Kind), Height: nodeHeight,
			Short: fit(n.Label, columnWidth(n.Kind)/characterWidth-1), ShortDetail: fit(n.Detail, columnWidth(n.Kind)/smallCharacterWidth-1),
			TextX: x[n.Kind] + labelInset, LabelY: place[i] + textLine, DetailY: place[i] + 2*textLine,
		})
	}
	for _, e := range g.Edges {
		d.connect(e, d.Nodes[g.at[e.From]], d.Nodes[g.at[e.To]])
	}
	return d
}

func (d *drawing) connect(e graphEdge, from, to drawnNode) {
	x1, y1, x2, y2 := from.X+from.Width, from.Y+nodeHeight/2, to.X, to.Y+nodeHeight/2
	bend := max(20, (x2-x1)/2)
	d.Edges = append(d.Edges, drawnEdge{
		Path:  fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, x1+bend, y1, x2-bend, y2, x2, y2),
		Label: e.Label, LabelX: x2 - 4, LabelY: y2 - 5,
	})
	d.Rows = append(d.Rows, graphRow{from.Label, to.Label, e.Label, to.Detail})
}

// successors are the places of the nodes that each leads to.
func (g *graph) successors() [][]int {
	next := make([][]int, len(g.Nodes))
	for _, e := range g.Edges {
		next[g.at[e.From]] = append(next[g.at[e.From]], g.at[e.To])
	}
	return next
}

// middle is the mean of some places; 0 of none.
func middle(of, place []int) int {
	if len(of) == 0 {
		return 0
	}
	sum := 0
	for _, i := range of {
		sum += place[i]
	}
	return sum / len(of)
}

// fit shortens a text to a number of characters.
func fit(text string, room int) string {
	runes := []rune(text)
	if len(runes) <= room {
		return text
	}
	return string(runes[:room-1]) + "…"
}

// Drawings are the graphs with places, for the page.
func (v graphView) Drawings() []*drawing {
	var all []*drawing
	title := "Outbound"
	if v.Host != "" {
		title += ": " + v.Host
	}
	if d := v.Outbound.draw(title); d != nil && len(d.Nodes) > 0 {
		all = append(all, d)
	}
	if d := v.Inbound.draw("Inbound"); d != nil {
		all = append(all, d)
	}
	return all
}

// svg is the drawing as a document of its own: that of the outbound graph, or else of the inbound one.
func (s *Server) svg(v graphView) (any, error) {
	drawings := v.Drawings()
	if len(drawings) == 0 {
		return nil, problem{http.StatusNotFound, "There is nothing to draw: choose a host."}
	}
	parsed, err := s.pages()
	if err != nil {
		return nil, err
	}
	drawings[0].Alone = true
	var b bytes.Buffer
	if err := parsed.of["graph"].ExecuteTemplate(&b, "drawing", drawings[0]); err != nil {
		return nil, err
	}
	return document{"image/svg+xml", "default-src 'none'; style-src 'unsafe-inline'", b.Bytes()}, nil
}
