package tracing

import (
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meshbridge/xds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTracesAreOffUnlessTheEnvironmentNamesAnEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		env map[string]string
		on  bool
	}{
		"nothing":               {nil, false},
		"an endpoint":           {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, true},
		"an endpoint of traces": {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4317"}, true},
		"switched off":          {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_SDK_DISABLED": "true"}, false},
		"no exporter":           {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_TRACES_EXPORTER": "none"}, false},
	} {
		tracer, err := Open(t.Context(), Config{Getenv: func(key string) string { return c.env[key] }, Logger: slog.New(slog.DiscardHandler)})
		if err != nil || (tracer != nil) != c.on {
			t.Errorf("%s: %v, %v", name, tracer, err)
		}
		if tracer != nil {
			tracer.close(t.Context())
		}
	}
}

func TestWithoutATracerNothingIsAllocated(t *testing.T) {
	now := time.Now()
	keys := []xds.Key{{Type: xds.EndpointType, Name: "a"}}
	if n := testing.AllocsPerRun(100, func() { untraced(now, keys) }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

func untraced(now time.Time, keys []xds.Key) {
	var tracer *Tracer
	p := tracer.Begin(now, now, "", keys)
	p.Translated(now, 1, 0)
	p.Committed(now, 7, 1)
	p.Done(now, 7)
}

func BenchmarkWithoutATracer(b *testing.B) {
	now := time.Now()
	keys := []xds.Key{{Type: xds.EndpointType, Name: "a"}}
	b.ReportAllocs()
	for b.Loop() {
		untraced(now, keys)
	}
}
