package console

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"meshbridge/translate"
)

// shownOfCode is how many places a code is shown with before one asks for all of them.
const shownOfCode = 5

// warningsView has what APISIX cannot express exactly, by code.
type warningsView struct {
	Counts severities  `json:"counts"`
	Code   string      `json:"code,omitempty"`
	Groups []codeGroup `json:"groups"`
	Page   paging      `json:"page"`
}

// codeGroup is the diagnostics of one code.
type codeGroup struct {
	Code     translate.Code     `json:"code"`
	Severity translate.Severity `json:"severity"`
	// Explanation says why, and what can be done about it; Document is where that is written.
	Explanation string           `json:"explanation"`
	Document    string           `json:"document"`
	Count       int              `json:"count"`
	Places      []diagnosedPlace `json:"places"`
	// More are not among Places.
	More int `json:"more"`
}

// diagnosedPlace is what one diagnostic is about.
type diagnosedPlace struct {
	Resource string `json:"resource"`
	Field    string `json:"field,omitempty"`
	Message  string `json:"message"`
	Origin   string `json:"origin,omitempty"`
	// Link is the page of the resource; empty where there is none.
	Link string `json:"-"`
}

func (s *Server) warnings(r *http.Request) (any, error) {
	f, err := readFilter(r)
	if err != nil {
		return nil, err
	}
	world := s.config.World()
	v := warningsView{Counts: countSeverities(world.Diagnostics), Code: f.query.Get("code")}
	explanations := map[translate.Code]string{}
	for _, info := range translate.Codes() {
		explanations[info.Code] = info.Explanation
	}
	groups := map[translate.Code]*codeGroup{}
	for _, d := range world.Diagnostics {
		if !f.admitsDiagnostic(d, v.Code) {
			continue
		}
		g := groups[d.Code]
		if g == nil {
			g = &codeGroup{Code: d.Code, Severity: d.Severity, Explanation: explanations[d.Code], Document: "docs/support.md#" + string(d.Code)}
			groups[d.Code] = g
		}
		g.Count++
		if len(g.Places) < shownOfCode || v.Code != "" {
			g.Places = append(g.Places, placeOf(world, d))
		}
	}
	all := make([]codeGroup, 0, len(groups))
	for _, g := range groups {
		g.More = g.Count - len(g.Places)
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b codeGroup) int {
		return cmp.Or(cmp.Compare(rank(a.Severity), rank(b.Severity)), cmp.Compare(b.Count, a.Count), strings.Compare(string(a.Code), string(b.Code)))
	})
	if v.Code != "" && len(all) == 1 {
		// All of one code: the pages are of its places.
		all[0].Places, v.Page = pageOf(&f, all[0].Places)
		v.Groups = all
		return v, nil
	}
	v.Groups, v.Page = pageOf(&f, all)
	return v, nil
}

func (f *filter) admitsDiagnostic(d translate.Diagnostic, code string) bool {
	return (code == "" || code == string(d.Code)) && (f.severity == "" || f.severity == d.Severity) &&
		(!f.flagged || d.Severity != translate.SeverityInfo) &&
		f.finds(d.Resource, d.Field, d.Message, d.Origin, string(d.Code))
}

// rank sorts severities, the worst first.
func rank(s translate.Severity) int {
	return slices.Index([]translate.Severity{translate.SeverityError, translate.SeverityWarning, translate.SeverityInfo}, s)
}

func placeOf(world World, d translate.Diagnostic) diagnosedPlace {
	p := diagnosedPlace{Resource: d.Resource, Field: d.Field, Message: d.Message, Origin: d.Origin}
	kind, name, _ := strings.Cut(d.Resource, " ")
	if _, r := lookUp(world, kind, name); r != nil {
		_, host, _ := virtualHostOf(d)
		p.Link, _ = linkTo("/resource", "type", kind, "name", name, "virtual_host", host) // pairs are pairs
	}
	return p
}

// supportView is the documentation of the codes.
type supportView struct {
	Codes []documentedCode `json:"codes"`
}

type documentedCode struct {
	translate.CodeInfo

	// Constructs are what it is about, and what becomes of each.
	Constructs []construct `json:"constructs"`
}

type construct struct {
	Name    string                 `json:"construct"`
	Source  string                 `json:"in_xds,omitempty"`
	Class   translate.SupportClass `json:"support"`
	Becomes string                 `json:"in_apisix,omitempty"`
}

func (*Server) support(*http.Request) (any, error) {
	of := map[translate.Code][]construct{}
	for _, section := range translate.SupportTable() {
		for _, row := range section.Rows {
			for _, code := range row.Codes {
				of[code] = append(of[code], construct{row.Construct, row.Source, row.Class, row.Becomes})
			}
		}
	}
	v := supportView{}
	for _, info := range translate.Codes() {
		v.Codes = append(v.Codes, documentedCode{info, append([]construct{}, of[info.Code]...)})
	}
	return v, nil
}
