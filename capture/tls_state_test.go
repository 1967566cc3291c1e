package capture

import (
	"runtime"
	"testing"
	"time"

	"meshbridge/translate"
)

func TestWhatWasMadeOfATableGoesWithIt(t *testing.T) {
	t.Parallel()
	var made compiled[translate.DownstreamTLS, serverTLS]
	built := 0
	build := func(translate.DownstreamTLS) *serverTLS {
		built++
		return &serverTLS{}
	}
	part := &translate.DownstreamTLS{ALPN: []string{"h2"}}
	if first := made.get(part, build); first != made.get(part, build) || built != 1 {
		t.Error("made twice of the same part")
	}
	runtime.KeepAlive(part)
	left := func() int {
		made.mu.Lock()
		defer made.mu.Unlock()
		return len(made.all)
	}
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for left() > 0 {
		runtime.GC()
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatal("what was made of a part outlives it")
		}
	}
}
