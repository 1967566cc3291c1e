package bridge

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"meshbridge/gateway/apisixtest"
	"meshbridge/store"
	"meshbridge/xds/xdstest"
)

// APISIX, in all three families of versions, has what the bridge serves, through bursts of endpoint
// changes, a restart of istiod and a restart of the bridge; and it reloads only for the latter.
func TestAPISIXFollowsTheBridgeThroughRestarts(t *testing.T) {
	const services = 12
	for _, version := range apisixtest.Versions() {
		t.Run(version, func(t *testing.T) {
			istiod := xdstest.NewServer(t)
			istiod.Set(xdstest.Mesh(services, 1).Resources()...)
			bridge := startBridge(t, testConfig(istiod))
			config := testConfig(istiod)
			config.Listen = bridge.etcd()

			client, err := apisixtest.New(version, "http://"+bridge.etcd(), "/apisix")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			life, stop := context.WithCancel(ctx)
			done := make(chan error, 1)
			go func() { done <- client.Run(life) }()
			defer func() {
				stop()
				<-done
			}()

			random := rand.New(rand.NewPCG(1, 2))
			endpoints := 4
			newest := "" // an address of the last change of the last burst
			burst := func() {
				for range 30 {
					istiod.Set(xdstest.Endpoints(random.IntN(services), 1+random.IntN(4)))
				}
				endpoints++
				newest = fmt.Sprintf(`"10.0.3.%d"`, endpoints)
				istiod.Set(xdstest.Endpoints(3, endpoints))
			}
			same := func(when string, r *running) {
				t.Helper()
				if err := client.WaitFor(ctx, func(objects map[string]string) bool {
					served := r.served(t)
					return maps.Equal(objects, served) && contains(served, newest)
				}); err != nil {
					t.Fatalf("%s: APISIX does not have what the bridge serves: %v", when, err)
				}
			}
			bridge.waitReady(t)
			same("at the start", bridge)
			burst()
			same("after a burst", bridge)
			istiod.Stop()
			istiod.Start()
			burst()
			same("after a restart of istiod", bridge)
			if reloads := client.Reloads(); len(reloads) != 0 {
				t.Errorf("APISIX reloaded: %v", reloads)
			}
			bridge.stop()
			bridge = startBridge(t, config)
			bridge.waitReady(t)
			same("after a restart of the bridge", bridge)
			burst()
			same("after a burst from the new bridge", bridge)
			if needless := client.NeedlessReloads(); len(needless) != 0 {
				t.Errorf("APISIX reloaded without need: %v", needless)
			}
			if faults := client.Faults(); len(faults) != 0 {
				t.Errorf("faults inside APISIX: %q", faults)
			}
		})
	}
}

// served is what an APISIX that has read everything would have loaded.
func (r *running) served(t *testing.T) map[string]string {
	t.Helper()
	all, err := r.store.Range([]byte("/apisix/"), store.Prefix([]byte("/apisix/")), store.RangeOptions{})
	if err != nil {
		t.Error(err)
	}
	objects := map[string]string{}
	for _, kv := range all.KVs {
		if !strings.HasSuffix(string(kv.Key), "/") {
			objects[string(kv.Key)] = string(kv.Value)
		}
	}
	return objects
}

func contains(objects map[string]string, text string) bool {
	for _, value := range objects {
		if strings.Contains(value, text) {
			return true
		}
	}
	return false
}
