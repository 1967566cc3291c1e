package logscope

import (
	"fmt"
	"log/slog"
	"strings"
)

// ParseLevel reads a level by slog's name for it, or by Envoy's: trace, debug, info, warning, error,
// critical, off.
func ParseLevel(name string) (slog.Level, error) {
	switch strings.ToLower(name) {
	case "trace":
		return slog.LevelDebug - 4, nil
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "critical":
		return slog.LevelError + 4, nil
	case "off":
		return Off, nil
	default:
		return 0, fmt.Errorf("%q is none of the levels trace, debug, info, warning, error, critical, off", name)
	}
}

// LevelName returns Envoy's name of the level that lets through what this one does.
func LevelName(level slog.Level) string {
	switch {
	case level < slog.LevelDebug:
		return "trace"
	case level < slog.LevelInfo:
		return "debug"
	case level < slog.LevelWarn:
		return "info"
	case level < slog.LevelError:
		return "warning"
	case level < slog.LevelError+4:
		return "error"
	case level < Off:
		return "critical"
	default:
		return "off"
	}
}

// Spec is what --log-level says: a level for all scopes, and levels for some.
type Spec struct {
	Default slog.Level
	Of      map[string]slog.Level
}

// ParseSpec reads a list such as "info,xds:debug", in which the level without a scope, info unless it
// is given, is that of all other scopes.
func ParseSpec(list string) (Spec, error) {
	spec := Spec{Default: slog.LevelInfo, Of: map[string]slog.Level{}}
	for part := range strings.SplitSeq(list, ",") {
		scope, name, scoped := strings.Cut(part, ":")
		if !scoped {
			scope, name = "", part
		}
		level, err := ParseLevel(name)
		switch {
		case err != nil:
			return Spec{}, err
		case !scoped:
			spec.Default = level
		default:
			spec.Of[scope] = level
		}
	}
	return spec, nil
}

// Apply sets the levels. It fails where there is no such scope.
func (s Spec) Apply(levels *Levels) error {
	levels.SetAll(s.Default)
	for scope, level := range s.Of {
		if err := levels.Set(scope, level); err != nil {
			return err
		}
	}
	return nil
}
