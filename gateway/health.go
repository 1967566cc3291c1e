package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// serveHealth serves the paths that ask how the server is, as etcd does, and reports whether the path is
// one of them:
//
//	/health            as JSON: no alarm, but those excluded
//	/livez, /readyz    as text: every check, but those excluded; with verbose each is listed
//	/livez/CHECK …     a single check
//	/version           the versions of server, cluster and storage
//
// None of them needs a token. A store in memory can always be read, so of etcd's checks only that of the
// alarms can fail.
func (h *httpHandler) serveHealth(w http.ResponseWriter, r *http.Request) bool {
	switch path := r.URL.Path; path {
	case "/version":
		h.ifGet(w, r, h.serveVersion)
	case "/health":
		h.ifGet(w, r, h.serveOldHealth)
	default:
		kind, name, single := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		checks := h.checks(kind)
		if single {
			checks = slices.DeleteFunc(checks, func(c check) bool { return c.name != name })
		}
		if len(checks) == 0 {
			return false
		}
		h.ifGet(w, r, func(w http.ResponseWriter, r *http.Request) {
			query := r.URL.Query()
			if !single {
				checks = slices.DeleteFunc(checks, func(c check) bool { return slices.Contains(query["exclude"], c.name) })
			}
			h.serveChecks(w, checks, query.Has("verbose"))
		})
	}
	return true
}

// ifGet serves GET, and nothing else: not even HEAD, as in etcd.
func (h *httpHandler) ifGet(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	serve(w, r)
}

func (h *httpHandler) serveVersion(w http.ResponseWriter, _ *http.Request) {
	cluster, _ := h.downgrade.version()
	w.Header().Set("Content-Type", jsonContentType)
	_, err := fmt.Fprintf(w, `{"etcdserver":%q,"etcdcluster":%q,"storage":%q}`, serverVersion, cluster, cluster)
	h.written(err)
}

// serveOldHealth serves /health. Whether the read that it stands for is serializable makes no difference to
// a single server.
func (h *httpHandler) serveOldHealth(w http.ResponseWriter, r *http.Request) {
	if reason := h.alarmReason(r.URL.Query()); reason != "" {
		h.metrics.health.failures.Add(1)
		http.Error(w, fmt.Sprintf(`{"health":"false","reason":%q}`, reason), http.StatusServiceUnavailable)
		return
	}
	h.metrics.health.successes.Add(1)
	w.Header().Set("Content-Type", textContentType)
	_, err := w.Write([]byte(`{"health":"true","reason":""}`))
	h.written(err)
}

// alarmReason says which alarm is active that is not excluded, or nothing.
func (h *httpHandler) alarmReason(query url.Values) string {
	for _, active := range h.alarms.list(pb.AlarmType_NONE) {
		switch {
		case slices.Contains(query["exclude"], active.kind.String()):
		case active.kind == pb.AlarmType_NOSPACE, active.kind == pb.AlarmType_CORRUPT:
			return "ALARM " + active.kind.String()
		default:
			return "ALARM UNKNOWN"
		}
	}
	return ""
}

// check is one of the checks of livez or readyz.
type check struct {
	name   string
	failed string // why, if it has
}

// checks runs those of a kind, livez or readyz; another kind has none.
func (h *httpHandler) checks(kind string) []check {
	switch kind {
	case "livez":
		return []check{{name: "serializable_read"}}
	case "readyz":
		corruption := check{name: "data_corruption"}
		if h.alarms.corrupt.Load() {
			corruption.failed = "alarm activated: " + pb.AlarmType_CORRUPT.String()
		}
		return []check{corruption, {name: "serializable_read"}, {name: "linearizable_read"}, {name: "non_learner"}}
	default:
		return nil
	}
}

// serveChecks answers with the result of the checks. etcd lists them in no particular order.
func (h *httpHandler) serveChecks(w http.ResponseWriter, checks []check, verbose bool) {
	var list strings.Builder
	failed := false
	for _, c := range checks {
		if c.failed != "" {
			failed = true
			fmt.Fprintf(&list, "[-]%s failed: %s\n", c.name, c.failed)
		} else {
			fmt.Fprintf(&list, "[+]%s ok\n", c.name)
		}
	}
	if failed {
		http.Error(w, list.String(), http.StatusServiceUnavailable)
		return
	}
	if !verbose {
		list.Reset()
	}
	w.Header().Set("Content-Type", textContentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, err := fmt.Fprint(w, list.String(), "ok\n")
	h.written(err)
}
