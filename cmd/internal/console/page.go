package console

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"meshbridge/translate"
)

//go:embed templates/*.html assets/*
var files embed.FS

// pages are the parsed templates, by view.
type pages struct{ of map[string]*template.Template }

// parsePages reads the templates. Each view has its own "content" within the common layout.
func parsePages() (*pages, error) {
	layout, err := template.New("layout.html").Funcs(functions()).ParseFS(files, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, err
	}
	p := &pages{of: map[string]*template.Template{}}
	for _, name := range append(viewNames(), "problem") {
		t, err := layout.Clone()
		if err == nil {
			t, err = t.ParseFS(files, "templates/"+name+".html")
		}
		if err != nil {
			return nil, err
		}
		p.of[name] = t
	}
	return p, nil
}

func viewNames() []string {
	var names []string
	for _, v := range views() {
		names = append(names, v.name)
	}
	return names
}

// layout is what every page shows around its content.
type layout struct {
	Title   string
	Menu    []menuItem
	Node    string
	State   state
	Banner  string
	Version string
	// Twin is the address of the same as JSON.
	Twin string
	Now  time.Time
	Data any
	// Request tells what was asked for, to fill in forms.
	Query url.Values
}

type menuItem struct {
	Path, Title string
	Current     bool
}

func (s *Server) page(v view) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		data, err := v.build(s, r)
		if raw, ok := data.(document); ok && err == nil {
			raw.serve(w)
			return
		}
		name, status := v.name, http.StatusOK
		if err != nil {
			name, status, data = "problem", statusOf(err), err.Error()
		}
		s.render(w, r, v, name, status, data)
	}
}

func (s *Server) render(w http.ResponseWriter, r *http.Request, v view, name string, status int, data any) {
	current := s.state()
	l := layout{
		Title: v.title, Node: shortNode(s.config.Node.GetId()), State: current.State, Banner: current.Banner, Version: s.config.Version,
		Twin: twinOf(v, r.URL.Query()), Now: time.Now(), Data: data, Query: r.URL.Query(),
	}
	for _, other := range views() {
		if other.inMenu {
			l.Menu = append(l.Menu, menuItem{other.path, other.title, other.title == v.title})
		}
	}
	parsed, err := s.pages()
	var body bytes.Buffer
	if err == nil {
		err = parsed.of[name].Execute(&body, l)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	secure(header, "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	if seconds, err := strconv.Atoi(r.URL.Query().Get("refresh")); err == nil && seconds > 0 && r.Method == http.MethodGet {
		header.Set("Refresh", strconv.Itoa(seconds))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}

// secure sets what keeps a browser from taking an answer for something else, or from showing it elsewhere.
func secure(header http.Header, policy string) {
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	// With no-referrer, browsers would not tell where a form comes from.
	header.Set("Referrer-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
}

// document is an answer that is neither a page nor JSON.
type document struct {
	contentType, policy string
	body                []byte
}

func (d document) serve(w http.ResponseWriter) {
	w.Header().Set("Content-Type", d.contentType)
	secure(w.Header(), d.policy)
	_, _ = w.Write(d.body)
}

// twin answers with the same as the page, as JSON.
func (s *Server) twin(v view) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		data, err := v.build(s, r)
		if raw, ok := data.(document); ok && err == nil {
			raw.serve(w)
			return
		}
		status := http.StatusOK
		if err != nil {
			status, data = statusOf(err), map[string]string{"error": err.Error()}
		}
		body, err := json.MarshalIndent(data, "", "  ")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		secure(w.Header(), "default-src 'none'; frame-ancestors 'none'")
		w.WriteHeader(status)
		_, _ = w.Write(append(body, '\n'))
	}
}

func statusOf(err error) int {
	if p, ok := errors.AsType[problem](err); ok {
		return p.status
	}
	return http.StatusInternalServerError
}

func twinOf(v view, query url.Values) string {
	query.Del("refresh")
	u := url.URL{Path: "/api/v1/" + v.name, RawQuery: query.Encode()}
	return u.String()
}

// serveAsset serves what pages refer to.
func serveAsset(w http.ResponseWriter, r *http.Request) {
	types := map[string]string{"console.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}
	name := r.PathValue("file")
	body, err := files.ReadFile("assets/" + name)
	if err != nil || types[name] == "" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", types[name])
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(body)
}

// functions are those of the templates.
func functions() template.FuncMap {
	return template.FuncMap{
		"severity": severityMark,
		"ago":      ago,
		"clock":    func(t time.Time) string { return t.UTC().Format("15:04:05") },
		"moment":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"machine":  func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"count": func(n any, one string) (string, error) {
			switch n := n.(type) {
			case int:
				return counted(n, one), nil
			case int64:
				return counted(int(n), one), nil
			}
			return "", fmt.Errorf("count: %T is no number", n)
		},
		"diffClass": differenceClass,
		"number":    grouped,
		"margin":    func(n int) string { return strings.Repeat("  ", n) },
		"link":      linkTo,
		"join":      strings.Join,
		"list":      func(items ...any) []any { return items },
	}
}

// linkTo makes an address of a path and pairs of parameters; those that are empty are left out.
func linkTo(path string, pairs ...string) (string, error) {
	if len(pairs)%2 != 0 {
		return "", errors.New("link wants pairs")
	}
	query := url.Values{}
	for pair := range slices.Chunk(pairs, 2) {
		if name, value := pair[0], pair[1]; value != "" {
			query.Set(name, value)
		}
	}
	u := url.URL{Path: path, RawQuery: query.Encode()}
	return u.String(), nil
}

// severityMark is a sign that tells severities apart without colours.
func severityMark(severity translate.Severity) string {
	switch severity {
	case translate.SeverityError:
		return "✖"
	case translate.SeverityWarning:
		return "▲"
	default:
		return "ℹ"
	}
}

// ago says how long ago, or how soon, a time is.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return "never"
	case d < 0:
		return "in " + duration(-d)
	default:
		return duration(d) + " ago"
	}
}

func duration(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}

// counted is a number with its noun.
func counted(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if stem, ok := strings.CutSuffix(one, "y"); ok {
		return grouped(n) + " " + stem + "ies"
	}
	return grouped(n) + " " + one + "s"
}

// grouped writes a number with thousands apart.
func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

// shortNode is the pod and namespace of a node id such as sidecar~10.0.0.1~reviews-1.default~….
func shortNode(id string) string {
	if parts := strings.Split(id, "~"); len(parts) == 4 {
		return parts[2]
	}
	return id
}
