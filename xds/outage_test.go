package xds

import (
	"log/slog"
	"testing"
	"time"
)

func TestRepeatedFailuresAreToldRarely(t *testing.T) {
	start := time.Now()
	var o outage
	for _, c := range []struct {
		after time.Duration
		cause string
		want  slog.Level
	}{
		{0, "refused", slog.LevelWarn},
		{time.Second, "refused", slog.LevelDebug},
		{2 * time.Second, "x509", slog.LevelWarn},
		{3 * time.Second, "refused", slog.LevelWarn},
		{30 * time.Second, "refused", slog.LevelDebug},
		{63 * time.Second, "refused", slog.LevelWarn},
		{64 * time.Second, "refused", slog.LevelDebug},
	} {
		if got := o.failed(start.Add(c.after), c.cause); got != c.want {
			t.Errorf("after %s, %s: level %s, want %s", c.after, c.cause, got, c.want)
		}
	}
	attrs := o.over(start.Add(70 * time.Second))
	if len(attrs) != 2 || attrs[0].Value.Int64() != 7 || attrs[1].Value.Duration() != 70*time.Second {
		t.Errorf("in the end it tells %v", attrs)
	}
	if attrs := o.over(start); attrs != nil {
		t.Errorf("without an outage it tells %v", attrs)
	}
	if got := o.failed(start, "refused"); got != slog.LevelWarn {
		t.Errorf("a new outage is told at level %s", got)
	}
}
