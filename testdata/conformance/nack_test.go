package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// A percentage above 100 is against Envoy's own validation rules; istiod sends
// it because an EnvoyFilter is applied as it is.
const brokenRatings = `
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: broken, namespace: default}
spec:
  configPatches:
  - applyTo: CLUSTER
    match: {context: SIDECAR_OUTBOUND, cluster: {service: ratings.default.svc.cluster.local}}
    patch:
      operation: MERGE
      value: {outlier_detection: {enforcing_success_rate: 101}}
`

// A cluster that is refused is reported to istiod by name, and its neighbours
// are taken: apisix-mesh-agent refused the whole response.
func TestRefusedResourceIsVisibleInIstiodAndHurtsNoOther(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	before := s.bridge.MustRange(t)
	watch := s.bridge.Watch(t, before.Revision+1)

	s.manifests.Write(t, "broken.yaml", brokenRatings)
	harness.Eventually(t, "refusal in istiod's view", func(ctx context.Context) error {
		proxy, err := s.istiod.Proxy(ctx)
		if err != nil {
			return err
		}
		if e := proxy.Resources[harness.ClusterType].LastError; !strings.Contains(e, "ratings") {
			return fmt.Errorf("last error %q does not name the cluster", e)
		}
		return nil
	})
	wantNoEvents(t, s.eventsSoFar(t, watch))
	wantUnchanged(t, before, s.bridge.MustRange(t))

	s.manifests.Remove(t, "broken.yaml")
	harness.Eventually(t, "acceptance in istiod's view", func(ctx context.Context) error {
		proxy, err := s.istiod.Proxy(ctx)
		if err == nil && proxy.Resources[harness.ClusterType].LastError != "" {
			err = errors.New("the refusal is still there")
		}
		return err
	})
	wantNoEvents(t, s.eventsSoFar(t, watch))
}
