package console

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"meshbridge/cmd/internal/logscope"
)

// toolsView has what one does besides looking.
type toolsView struct {
	Levels []levelView `json:"levels"`
	// Choices are the levels there are.
	Choices  []string       `json:"-"`
	Changed  bool           `json:"-"`
	Links    []toolLink     `json:"links"`
	Commands []commandGroup `json:"commands"`
}

type levelView struct {
	Scope string `json:"scope"`
	Level string `json:"level"`
}

type toolLink struct {
	Path string `json:"path"`
	What string `json:"what"`
}

type commandGroup struct {
	Title    string   `json:"title"`
	Commands []string `json:"commands"`
}

func levelNames() []string {
	return []string{"trace", "debug", "info", "warning", "error", "critical", "off"}
}

func (s *Server) tools(r *http.Request) (any, error) {
	v := toolsView{Levels: []levelView{}, Choices: levelNames(), Changed: r.URL.Query().Get("changed") != "", Links: links(), Commands: s.commands(r)}
	if s.config.Levels != nil {
		for _, scope := range logscope.Names() {
			v.Levels = append(v.Levels, levelView{scope, logscope.LevelName(s.config.Levels.Get(scope))})
		}
	}
	return v, nil
}

func links() []toolLink {
	return []toolLink{
		{"/config_dump?include_eds", "everything as received, as Envoy writes it"},
		{"/clusters", "clusters and their hosts"},
		{"/listeners", "listeners and their addresses"},
		{"/certs", "certificates of the workload and of gateways"},
		{"/init_dump", "what has not been answered yet"},
		{"/server_info", "version, state and node"},
		{"/stats", "metrics, as Envoy names them"},
		{"/stats/prometheus", "metrics for Prometheus"},
		{"/diagnostics", "all diagnostics as JSON"},
		{"/support", "what each diagnostic means"},
		{"/memory", "memory in use"},
		{"/debug/pprof/", "profiles: goroutines, heap, CPU"},
		{"/help", "all paths of this port"},
	}
}

// commands are for the shell, with the names and addresses of this bridge in them.
func (s *Server) commands(r *http.Request) []commandGroup {
	admin := "http://" + cmp.Or(r.Host, "127.0.0.1:15000")
	groups := []commandGroup{{"This bridge", []string{
		"curl -s " + admin + "/api/v1/now",
		"curl -s '" + admin + "/api/v1/warnings?severity=error'",
		"curl -s '" + admin + "/api/v1/check?host=reviews:9080&path=/'",
		"curl -s -X POST '" + admin + "/logging?xds=debug'",
		"go tool pprof " + admin + "/debug/pprof/profile?seconds=10",
	}}}
	if etcd := s.config.Ports["listen"]; etcd != "" {
		groups = append(groups, commandGroup{"What APISIX is given", []string{
			"etcdctl --endpoints=" + etcd + " get --prefix --keys-only " + s.config.Prefix + "/",
			"etcdctl --endpoints=" + etcd + " watch --prefix " + s.config.Prefix + "/",
		}})
	}
	if pod := shortNode(s.config.Node.GetId()); pod != "" && pod != s.config.Node.GetId() {
		groups = append(groups, commandGroup{"From elsewhere", []string{
			"istioctl proxy-status " + pod,
			"istioctl proxy-config routes " + pod,
			"istioctl proxy-config endpoints " + pod,
			"istioctl dashboard envoy " + pod,
		}})
	}
	return groups
}

// changeLevels changes log levels for the form. Guard lets requests through that tell no origin: those are
// not from browsers, for which /logging is better, and a form is always a browser's.
func (s *Server) changeLevels(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, text string) {
		s.render(w, r, view{path: "/tools", name: "tools", title: "Tools"}, "problem", status, text)
	}
	if !sameOrigin(r) {
		refuse(http.StatusForbidden, "This form has to be sent from the page itself.")
		return
	}
	levels := s.config.Levels
	if levels == nil {
		refuse(http.StatusNotImplemented, "Levels of the log cannot be changed.")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
	if err := r.ParseForm(); err != nil {
		refuse(http.StatusBadRequest, "The form cannot be read: "+err.Error())
		return
	}
	changed := map[string]slog.Level{}
	for scope, values := range r.PostForm {
		if !slices.Contains(logscope.Names(), scope) {
			refuse(http.StatusBadRequest, "There is no scope "+strconv.Quote(scope)+".")
			return
		}
		level, err := logscope.ParseLevel(values[0])
		if err != nil {
			refuse(http.StatusBadRequest, err.Error())
			return
		}
		// Levels between those with a name stay what they are unless another is chosen.
		if logscope.LevelName(levels.Get(scope)) != logscope.LevelName(level) {
			changed[scope] = level
		}
	}
	for scope, level := range changed {
		_ = levels.Set(scope, level) // it is one of the names
		s.config.Logger.InfoContext(r.Context(), "log level changed", slog.String("of", scope), slog.String("level", logscope.LevelName(level)))
	}
	http.Redirect(w, r, "/tools?changed=1", http.StatusSeeOther)
}

// sameOrigin tells whether a browser says that a request is from a page of this port.
func sameOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	origin, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && origin.Host != "" && origin.Host == r.Host
}
