package console

import (
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"meshbridge/translate"
)

const (
	defaultPerPage = 50
	maxPerPage     = 1000
)

// filter is what a list is narrowed to by the query.
type filter struct {
	// search is in lower case.
	search, kind string
	severity     translate.Severity
	// flagged leaves out what has no diagnostics of severity warning or error.
	flagged       bool
	page, perPage int
	query         url.Values
}

func readFilter(r *http.Request) (filter, error) {
	q := r.URL.Query()
	f := filter{
		search: strings.ToLower(strings.TrimSpace(q.Get("q"))), kind: q.Get("type"),
		severity: translate.Severity(q.Get("severity")), flagged: q.Get("flagged") != "",
		page: 1, perPage: defaultPerPage, query: q,
	}
	switch f.severity {
	case "", translate.SeverityError, translate.SeverityWarning, translate.SeverityInfo:
	default:
		return f, problem{http.StatusBadRequest, "severity: want error, warning or info"}
	}
	for name, to := range map[string]*int{"page": &f.page, "per_page": &f.perPage} {
		text := q.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return f, problem{http.StatusBadRequest, name + ": want a number from 1 on"}
		}
		*to = n
	}
	f.perPage = min(f.perPage, maxPerPage)
	return f, nil
}

// finds tells whether one of the texts has what is searched for.
func (f *filter) finds(texts ...string) bool {
	for _, text := range texts {
		if strings.Contains(strings.ToLower(text), f.search) {
			return true
		}
	}
	return false
}

// paging is the place of a page in a list.
type paging struct {
	Page    int `json:"page"`
	Pages   int `json:"pages"`
	PerPage int `json:"per_page"`
	Total   int `json:"total"`
	// Previous and Next are queries; empty where there is no such page.
	Previous string `json:"-"`
	Next     string `json:"-"`
}

// pageOf returns the filter's page of a list. One beyond the end is the last.
func pageOf[T any](f *filter, list []T) ([]T, paging) {
	p := paging{PerPage: f.perPage, Total: len(list), Pages: max(1, (len(list)+f.perPage-1)/f.perPage)}
	p.Page = min(f.page, p.Pages)
	if p.Page > 1 {
		p.Previous = f.other(p.Page - 1)
	}
	if p.Page < p.Pages {
		p.Next = f.other(p.Page + 1)
	}
	first := (p.Page - 1) * f.perPage
	part := make([]T, 0, f.perPage) // and never null
	return append(part, list[first:min(first+f.perPage, len(list))]...), p
}

func (f *filter) other(page int) string {
	q := maps.Clone(f.query)
	q.Set("page", strconv.Itoa(page))
	return "?" + q.Encode()
}
