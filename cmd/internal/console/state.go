package console

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"meshbridge/translate"
	"meshbridge/xds"
)

// state says in a word how the bridge is.
type state string

const (
	// stateStarting: nothing is served yet.
	stateStarting state = "starting"
	// stateInSync: what istiod has sent last is served.
	stateInSync state = "in_sync"
	// stateFiles: what the files hold is served.
	stateFiles state = "files"
	// stateAttention: served, except for what is refused.
	stateAttention state = "attention"
	// stateStale: istiod does not answer, and its last configuration is served.
	stateStale state = "stale"
)

// Label is the state for people.
func (s state) Label() string {
	return map[state]string{
		stateStarting: "Starting", stateInSync: "In sync", stateFiles: "From files", stateAttention: "Needs attention", stateStale: "Stale",
	}[s]
}

// Sign tells states apart without colours.
func (s state) Sign() string {
	return map[state]string{stateStarting: "…", stateInSync: "✔", stateFiles: "✔", stateAttention: "▲", stateStale: "✖"}[s]
}

// severities counts diagnostics.
type severities struct {
	Error   int `json:"error"`
	Warning int `json:"warning"`
	Info    int `json:"info"`
}

// plus counts one more.
func (s severities) plus(severity translate.Severity) severities {
	switch severity {
	case translate.SeverityError:
		s.Error++
	case translate.SeverityWarning:
		s.Warning++
	default:
		s.Info++
	}
	return s
}

// Flagged is the number of those that are more than information.
func (s severities) Flagged() int { return s.Error + s.Warning }

// Total is the number of all.
func (s severities) Total() int { return s.Error + s.Warning + s.Info }

func countSeverities(all []translate.Diagnostic) (s severities) {
	for _, d := range all {
		s = s.plus(d.Severity)
	}
	return s
}

// controlPlane is what istiod says of itself.
type controlPlane struct {
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
}

func parseControlPlane(identifier string) controlPlane {
	var istiod struct {
		ID   string
		Info struct{ Version string }
	}
	if json.Unmarshal([]byte(identifier), &istiod) != nil {
		return controlPlane{Name: identifier}
	}
	return controlPlane{Name: istiod.ID, Version: istiod.Info.Version}
}

// condition is the state, with what every page says of it.
type condition struct {
	State    state
	Sentence string
	// Banner says that what is served is old; empty where it is not.
	Banner string
}

func (s *Server) state() condition { return s.condition(s.config.World(), s.sourceStatus()) }

// sourceStatus is nil where resources come from files.
func (s *Server) sourceStatus() *xds.Status {
	if s.config.Source == nil {
		return nil
	}
	status := s.config.Source()
	return &status
}

// condition says how it is in one sentence.
func (s *Server) condition(w World, source *xds.Status) condition {
	counts := countSeverities(w.Diagnostics)
	world := []string{
		counted(w.Snapshot.Len(xds.ClusterType), "cluster") + ", " + counted(s.countRoutes(), "route"),
	}
	if counts.Error > 0 {
		world = append(world, counted(counts.Error, "error")+", "+counted(counts.Warning, "warning"))
	} else {
		world = append(world, counted(counts.Warning, "warning"))
	}
	if n := len(w.Rejected); n > 0 {
		world = append(world, counted(n, "resource")+" refused")
	}
	served := strings.Join(world, "; ")
	istiod := "istiod"
	if source != nil {
		istiod = cmp.Or(parseControlPlane(source.ControlPlane).Name, "istiod at "+source.Target)
	}
	switch {
	case !w.Ready && source != nil && !source.Connected:
		sentence := "Starting: waiting for " + istiod
		if source.LastError != nil {
			sentence += ": " + source.LastError.Error()
		}
		return condition{State: stateStarting, Sentence: sentence}
	case !w.Ready:
		return condition{State: stateStarting, Sentence: "Starting: waiting for " + counted(len(w.Pending), "resource")}
	case w.LastGood:
		return condition{
			State: stateStale, Sentence: "Serving the last good state of an earlier process; " + served,
			Banner: "Received at " + w.Received.UTC().Format("2006-01-02 15:04:05 UTC") + ". " + istiod + " has not sent a complete configuration since the start.",
		}
	case source == nil:
		return condition{State: attention(stateFiles, w), Sentence: "Serving what the files hold since " + clockTime(w.Received) + "; " + served}
	case !source.Connected:
		banner := fmt.Sprintf("Disconnected since %s: %s does not answer. What it sent last, at %s, goes on being served.",
			clockTime(source.Since), istiod, clockTime(w.Received))
		if source.Since.IsZero() {
			banner = istiod + " has not answered since the start. What was served before goes on being served."
		}
		return condition{State: stateStale, Sentence: "Serving the last good configuration; " + served, Banner: banner}
	default:
		return condition{State: attention(stateInSync, w), Sentence: fmt.Sprintf("In sync with %s since %s; %s", istiod, clockTime(source.Since), served)}
	}
}

func attention(otherwise state, w World) state {
	if len(w.Rejected) > 0 {
		return stateAttention
	}
	return otherwise
}

func clockTime(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }
