package console

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"meshbridge/translate/apisix"
)

const (
	// commitsPerPage is fewer than of other things, for each has differences below it.
	commitsPerPage = 20
	// shownChanges and shownDifference bound what is shown of one revision, in objects and lines.
	shownChanges, shownDifference = 50, 200
)

// changesView has the last revisions, the newest first.
type changesView struct {
	Current  int64         `json:"current_revision"`
	Revision int64         `json:"revision,omitempty"`
	Watchers []watcherView `json:"watchers"`
	Commits  []commitView  `json:"commits"`
	Page     paging        `json:"page"`
}

type commitView struct {
	Revision int64     `json:"revision"`
	At       time.Time `json:"at"`
	Put      int       `json:"put"`
	Deleted  int       `json:"deleted"`
	// Kinds are the collections that changed.
	Kinds []string `json:"collections"`
	// Sent is how many of the watchers have been sent it.
	Sent    int          `json:"watchers_sent"`
	Changes []changeView `json:"changes"`
	More    int          `json:"more_changes"`
	Open    bool         `json:"-"`
}

type changeView struct {
	Key string `json:"key"`
	// Op is "create", "update" or "delete".
	Op string `json:"op"`
	// Difference is in the unified form, of the objects as YAML.
	Difference []string `json:"difference"`
	// Cut is how many lines of it are left out.
	Cut int `json:"cut_lines"`
}

func (s *Server) changes(r *http.Request) (any, error) {
	f, err := readFilter(r)
	if err != nil {
		return nil, err
	}
	if f.query.Get("per_page") == "" {
		f.perPage = commitsPerPage
	}
	v := changesView{Current: s.config.Store.Stats().Revision, Watchers: s.watchers()}
	if text := f.query.Get("revision"); text != "" {
		if v.Revision, err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, problem{http.StatusBadRequest, "revision: want a number"}
		}
	}
	var commits []commit
	for _, c := range s.config.Changes.newestFirst() {
		if v.Revision != 0 && c.revision != v.Revision || f.search != "" && !slices.ContainsFunc(c.changes, func(c Change) bool { return f.finds(c.Key) }) {
			continue
		}
		commits = append(commits, c)
	}
	if v.Revision != 0 && len(commits) == 0 {
		return nil, problem{http.StatusNotFound, "Revision " + strconv.FormatInt(v.Revision, 10) + " is not remembered: it is too old, or was not made by the bridge."}
	}
	part, page := pageOf(&f, commits)
	v.Page = page
	v.Commits = make([]commitView, 0, len(part))
	for i, c := range part {
		shown := c.view(&f, v.Watchers)
		shown.Open = i == 0
		v.Commits = append(v.Commits, shown)
	}
	return v, nil
}

func (c commit) view(f *filter, watchers []watcherView) commitView {
	v := commitView{Revision: c.revision, At: c.at, Kinds: []string{}, Changes: []changeView{}}
	for _, w := range watchers {
		if w.Revision >= c.revision {
			v.Sent++
		}
	}
	for _, change := range c.changes {
		if change.After == nil {
			v.Deleted++
		} else {
			v.Put++
		}
		kind, _, _ := apisix.ParseKey(change.Key)
		if kind != "" && !slices.Contains(v.Kinds, string(kind)) {
			v.Kinds = append(v.Kinds, string(kind))
		}
		if f.finds(change.Key) && len(v.Changes) < shownChanges {
			v.Changes = append(v.Changes, change.view())
		}
	}
	v.More = c.count - len(v.Changes)
	// Of what is only counted, most are puts: a revision of that size is the first.
	v.Put += c.count - len(c.changes)
	return v
}

func (c Change) view() changeView {
	v := changeView{Key: c.Key, Op: "update", Difference: []string{}}
	switch {
	case c.Before == nil:
		v.Op = "create"
	case c.After == nil:
		v.Op = "delete"
	}
	if cmp.Or(len(c.Before), len(c.After)) == 0 {
		return v // its values are not remembered
	}
	kind, _, _ := apisix.ParseKey(c.Key)
	lines := difference(asYAML(kind, c.Before), asYAML(kind, c.After))
	v.Cut = max(0, len(lines)-shownDifference)
	v.Difference = lines[:len(lines)-v.Cut]
	return v
}

// asYAML is an object as it is shown; what is no JSON is shown as it is.
func asYAML(kind apisix.Kind, value []byte) string {
	if len(value) == 0 {
		return ""
	}
	tree, err := parseJSON(value)
	if err != nil {
		return printable(string(value)) + "\n"
	}
	redactObject(kind, tree)
	var b strings.Builder
	for _, l := range tree.yaml() {
		b.WriteString(l.Text())
		b.WriteByte('\n')
	}
	return b.String()
}

// difference returns the lines of a unified difference, without the names.
func difference(before, after string) []string {
	text := string(diff.Diff("before", []byte(before), "after", []byte(after)))
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 5 { // there is no difference
		return []string{}
	}
	lines = lines[3:] // after "diff before after", "--- before" and "+++ after"
	if before == "" || after == "" {
		return lines[1:] // where it is says nothing
	}
	return lines
}

// differenceClass tells the lines of a difference apart.
func differenceClass(line string) string {
	switch {
	case strings.HasPrefix(line, "+"):
		return "plus"
	case strings.HasPrefix(line, "-"):
		return "minus"
	case strings.HasPrefix(line, "@"):
		return "hunk"
	default:
		return "same"
	}
}
