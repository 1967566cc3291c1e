package translate

import (
	"testing"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// FuzzRouteConfigurations feeds anything that decodes as a route configuration: translation neither
// panics nor makes an object that APISIX would refuse.
func FuzzRouteConfigurations(f *testing.F) {
	for _, sc := range loadScenarios(f) {
		for r := range sc.snapshot.All(xds.RouteType) {
			f.Add(r.Body.GetValue())
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		config := &routepb.RouteConfiguration{}
		if proto.Unmarshal(body, config) != nil || config.ValidateAll() != nil {
			t.Skip() // package xds refuses it
		}
		s := chainState(t, config)
		e, err := apisix.NewEvaluator(s.Objects(), apisix.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if refused := e.Refused(); len(refused) > 0 {
			t.Fatal(refused)
		}
		for _, d := range s.Diagnostics() {
			if d.Code == "invalid_object" || d.Code == "id_collision" {
				t.Error(d)
			}
		}
	})
}
