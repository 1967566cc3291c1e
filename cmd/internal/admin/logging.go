package admin

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"meshbridge/cmd/internal/logscope"
)

const loggingUsage = `usage: /logging?<scope>=<level> (change one level)
usage: /logging?paths=scope1:level1,scope2:level2[...] (change several levels)
usage: /logging?level=<level> (change all levels)
levels: trace debug info warning error critical off
`

// serveLogging lists the levels, and changes them before that where the query says so. istioctl looks for
// the names of scopes in the answer.
func (s *Server) serveLogging(w http.ResponseWriter, r *http.Request) {
	levels, query := s.config.Levels, r.URL.Query()
	switch {
	case levels == nil:
		writeText(w, http.StatusNotImplemented, "levels of the log cannot be changed\n")
		return
	case len(query) > 0 && r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		writeText(w, http.StatusMethodNotAllowed, "Method Not Allowed: changing levels wants POST\n")
		return
	case len(query) > 0:
		change, err := parseLevels(query)
		if err == nil {
			err = change.apply(levels)
		}
		if err != nil {
			writeText(w, http.StatusBadRequest, "error: "+err.Error()+"\n\n"+loggingUsage)
			return
		}
		s.config.Logger.InfoContext(r.Context(), "log levels changed", slog.String("query", r.URL.RawQuery))
	}
	var b strings.Builder
	b.WriteString("active loggers:\n")
	for _, scope := range logscope.Names() {
		fmt.Fprintf(&b, "  %s: %s\n", scope, logscope.LevelName(levels.Get(scope)))
	}
	writeText(w, http.StatusOK, b.String()+"\n")
}

// levelChange is a change of levels.
type levelChange struct {
	all *slog.Level
	of  map[string]slog.Level
}

func parseLevels(query url.Values) (levelChange, error) {
	change := levelChange{of: map[string]slog.Level{}}
	for name, values := range query {
		for _, value := range values {
			var err error
			switch name {
			case "level":
				var level slog.Level
				if level, err = logscope.ParseLevel(value); err == nil {
					change.all = &level
				}
			case "paths":
				for pair := range strings.SplitSeq(value, ",") {
					scope, level, ok := strings.Cut(pair, ":")
					if !ok {
						return change, fmt.Errorf("%q is not scope:level", pair)
					}
					if change.of[scope], err = logscope.ParseLevel(level); err != nil {
						break
					}
				}
			default:
				change.of[name], err = logscope.ParseLevel(value)
			}
			if err != nil {
				return change, err
			}
		}
	}
	return change, nil
}

// apply changes all levels or, where there is no such scope, none.
func (c levelChange) apply(levels *logscope.Levels) error {
	for scope := range c.of {
		if !slices.Contains(logscope.Names(), scope) {
			return fmt.Errorf("unknown logger name %q", scope)
		}
	}
	if c.all != nil {
		levels.SetAll(*c.all)
	}
	for scope, level := range c.of {
		if err := levels.Set(scope, level); err != nil {
			return err
		}
	}
	return nil
}
