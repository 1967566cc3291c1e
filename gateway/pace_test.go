package gateway

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestPaceHoldsBackOnlyWhoWasServedAMomentAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		interval := paceFor(1000, wakeHTTP, 2)
		if few, many := paceFor(1, wakeGRPC, 2), paceFor(1_000_000, wakeHTTP, 2); interval < minPace || interval > maxPace || few >= minPace || many != maxPace {
			t.Fatalf("intervals %v for 1,000 watchers, %v for 1, %v for 1,000,000", interval, few, many)
		}
		served := time.Now()
		if p.holdBack(served, 0) != nil {
			t.Error("held back without an interval")
		}
		if p.holdBack(served.Add(-interval), interval) != nil {
			t.Error("held back after a pause")
		}
		first, second := p.holdBack(served, interval), p.holdBack(served, interval)
		if first == nil || first != second {
			t.Fatal("two streams that were just served do not share a gate")
		}
		<-first
		if waited := time.Since(served); waited != interval {
			t.Errorf("held back for %v, want %v", waited, interval)
		}
		if p.holdBack(served, interval) != nil {
			t.Error("held back after the interval")
		}
		next := p.holdBack(time.Now(), interval)
		if next == nil {
			t.Error("the next interval does not begin")
		}
		p.stop()
		synctest.Wait()
		select {
		case <-next:
			t.Error("the gate opened after the end")
		default:
		}
	})
}
