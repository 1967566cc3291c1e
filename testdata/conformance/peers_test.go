package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// What istiod asks for by default is that every request says whose it is; configured so, those to services outside
// the mesh do not.
func TestRequestsToServicesOutsideTheMeshDoNotSayWhoseTheyAre(t *testing.T) {
	// As the injector sets it, by the mesh's configuration or an annotation of the pod.
	t.Setenv("PROXY_CONFIG", `{"proxyHeaders":{"metadataExchangeHeaders":{"mode":"IN_MESH"}}}`)
	manifests := harness.CopyManifests(t, demo)
	istiod := harness.StartIstiod(t, binaries.Istiod, manifests.Dir)
	manifests.Write(t, "outside.yaml", `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: default}
spec:
  hosts: [outside.example]
  ports: [{number: 9080, name: http, protocol: HTTP}]
  location: MESH_EXTERNAL
  resolution: STATIC
  endpoints: [{address: 127.0.4.9}]
`)
	bridge := harness.StartBridge(t, binaries.Meshbridge, "grpc://"+istiod.GRPC)
	bridge.WaitReady(t)
	type labelled struct {
		UpstreamID string            `json:"upstream_id"`
		Labels     map[string]string `json:"labels"`
	}
	harness.Eventually(t, "routes to a service outside the mesh that are quiet, and others that are not", func(ctx context.Context) error {
		snapshot, err := bridge.Range(ctx)
		if err != nil {
			return err
		}
		if rule := snapshot.Objects[harness.Prefix+"global_rules/g.peers"]; !strings.Contains(rule.Value, "serverless-pre-function") {
			return errors.New("nobody is told whose requests they are")
		}
		outside, inside := 0, 0
		for id, o := range snapshot.Routes() {
			r := decode[labelled](t, o.Value)
			external := strings.Contains(r.UpstreamID, "outside.example")
			if quiet := r.Labels["meshbridge.quiet"] != ""; quiet != external && !strings.Contains(r.UpstreamID, "PassthroughCluster") {
				return fmt.Errorf("route %s to upstream %q: quiet is %t", id, r.UpstreamID, quiet)
			}
			switch {
			case external:
				outside++
			case r.UpstreamID != "":
				inside++
			}
		}
		if outside == 0 || inside == 0 {
			return fmt.Errorf("%d routes lead out of the mesh, and %d into it", outside, inside)
		}
		return nil
	})
}
