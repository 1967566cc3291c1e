package logscope_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"meshbridge/cmd/internal/logscope"
)

func newLog(level slog.Level) (*slog.Logger, *bytes.Buffer) {
	var out bytes.Buffer
	return slog.New(logscope.NewHandler(slog.NewTextHandler(&out, logscope.Everything()), level)), &out
}

func TestTheLevelOfAScopeChangesWhileLoggersAreInUse(t *testing.T) {
	root, out := newLog(slog.LevelInfo)
	xds := logscope.Logger(root, logscope.XDS).With(slog.String("a", "b")).WithGroup("g")
	xds.Debug("hidden")
	levels := logscope.LevelsOf(root)
	if err := levels.Set(logscope.XDS, slog.LevelDebug); err != nil {
		t.Fatal(err)
	}
	xds.Debug("shown", slog.Int("n", 1))
	root.Debug("of another scope")
	levels.SetAll(logscope.Off)
	xds.Error("off")
	root.Error("off")
	got := out.String()
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, `msg=shown scope=xds a=b g.n=1`) {
		t.Errorf("logged:\n%s", got)
	}
}

func TestALoggerWithoutScopesIsLeftAlone(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if logscope.Logger(log, logscope.XDS) != log || logscope.LevelsOf(log) != nil {
		t.Error("the logger was changed")
	}
}

func TestLevelsAreReadAsTheyAreWritten(t *testing.T) {
	for _, name := range []string{"trace", "debug", "info", "warning", "error", "critical", "off"} {
		level, err := logscope.ParseLevel(name)
		if err != nil || logscope.LevelName(level) != name {
			t.Errorf("%s: %v, named %s, %v", name, level, logscope.LevelName(level), err)
		}
	}
}

func TestASpecNamesScopes(t *testing.T) {
	root, _ := newLog(slog.LevelInfo)
	levels := logscope.LevelsOf(root)
	spec, err := logscope.ParseSpec("warn,xds:debug,dns:off")
	if err == nil {
		err = spec.Apply(levels)
	}
	if err != nil {
		t.Fatal(err)
	}
	for scope, want := range map[string]string{logscope.XDS: "debug", logscope.DNS: "off", logscope.Bridge: "warning"} {
		if got := logscope.LevelName(levels.Get(scope)); got != want {
			t.Errorf("%s: %s, want %s", scope, got, want)
		}
	}
	for _, wrong := range []string{"", "loud", "xds:", "info,xds:loud"} {
		if _, err := logscope.ParseSpec(wrong); err == nil {
			t.Errorf("%q is accepted", wrong)
		}
	}
	if spec, err = logscope.ParseSpec("pilot:debug"); err != nil || spec.Apply(levels) == nil {
		t.Errorf("a scope that does not exist is accepted: %v", err)
	}
}
