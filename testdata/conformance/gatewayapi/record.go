package gatewayapi

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/anypb"
	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/gvk"
	kubelib "istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/test/util/retry"
	"istio.io/istio/pkg/util/sets"
	"sigs.k8s.io/yaml"

	"meshbridge/testdata/conformance/istiod"
	"meshbridge/testdata/conformance/recording"
)

// convertedWithin is how long Istio may take to convert a fixture.
const convertedWithin = 10 * time.Second

// record runs a discovery server with the fixture, and records what its proxies are sent.
func (f fixture) record(t *testing.T, out string, around Surroundings) Fixture {
	t.Helper()
	objects, others := around.kubernetes(f.text)
	objects = append(append(objects, f.objects...), f.namespaces()...)
	ds := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		KubernetesObjects: objects, Configs: f.configs, Services: others, DisableSecretAuthorization: true,
		KubeClientModifier: func(client kubelib.Client) { istiod.InstallCRDs(t, client) },
	})
	converted := f.converted(t, ds)
	for i, s := range others {
		addInstances(ds, s, fmt.Sprintf("10.10.2.%d", i+1))
	}
	gateways := gatewaysOf(converted)
	for _, g := range gateways {
		g.serve(ds)
	}
	push(t, ds)

	done := Fixture{Name: f.name, Skipped: f.waypoints(), Converted: len(converted)}
	for _, p := range append(routersOf(gateways), sidecarsOf(converted)...) {
		proxy := ds.SetupProxy(p)
		resources := generate(t, ds, proxy)
		name := f.name + "." + proxy.ID
		if len(resources[recording.ListenerType]) == 0 {
			done.Skipped = append(done.Skipped, Skipped{proxy.ID, "Istio makes no listener for it"})
			continue
		}
		done.Recorded = append(done.Recorded, name)
		writeJSON(t, filepath.Join(out, name, "node.json"), map[string]any{
			"id":       strings.Join([]string{string(proxy.Type), proxy.IPAddresses[0], proxy.ID, proxy.DNSDomain}, "~"),
			"metadata": map[string]any{"INSTANCE_IPS": proxy.IPAddresses[0]},
		})
		if err := recording.Write(filepath.Join(out, name, "xds"), resources); err != nil {
			t.Fatal(err)
		}
	}
	return done
}

// converted waits until Istio has made of the fixture what its golden file says, and returns that.
func (f fixture) converted(t *testing.T, ds *xds.FakeDiscoveryServer) []config.Config {
	t.Helper()
	var want []string
	for doc := range strings.SplitSeq(f.golden, "---\n") {
		if doc != "" {
			want = append(want, doc)
		}
	}
	slices.Sort(want)
	var out []config.Config
	var got []string
	err := retry.UntilSuccess(func() error {
		out, got = nil, nil
		for _, kind := range []config.GroupVersionKind{gvk.Gateway, gvk.VirtualService, gvk.DestinationRule} {
			out = append(out, ds.Env().GatewayAPIController.List(kind, "")...)
		}
		for _, c := range out {
			got = append(got, format(t, c))
		}
		slices.Sort(got)
		if !f.isExpected && len(out) > 0 || f.isExpected && slices.Equal(want, got) {
			return nil
		}
		return errors.New("not converted yet")
	}, retry.Delay(time.Millisecond), retry.Timeout(convertedWithin))
	if err != nil {
		t.Fatalf("what Istio makes of it is not what its golden file says:\n%s", cmp.Diff(want, got))
	}
	slices.SortFunc(out, func(a, b config.Config) int { return strings.Compare(a.Key(), b.Key()) })
	return out
}

// format is the text of an object as Istio's golden files have it.
func format(t *testing.T, c config.Config) string {
	t.Helper()
	object, err := crd.ConvertConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// push makes a new configuration of all that is known, and waits for it.
func push(t *testing.T, ds *xds.FakeDiscoveryServer) {
	t.Helper()
	ds.Discovery.ConfigUpdate(&model.PushRequest{Forced: true})
	updates := ds.Discovery.InboundUpdates.Load()
	retry.UntilOrFail(t, func() bool { return ds.Discovery.CommittedUpdates.Load() >= updates }, retry.Delay(time.Millisecond))
}

// generate asks for everything that the proxy would ask for. It goes to the generators because a
// connection would not be authenticated, and have no secrets.
func generate(t *testing.T, ds *xds.FakeDiscoveryServer, proxy *model.Proxy) recording.Resources {
	t.Helper()
	out, wanted := recording.Resources{}, recording.References{}
	ask := func(typeURL string, names ...string) {
		request := &model.PushRequest{Push: ds.PushContext(), Forced: true}
		resources, _, err := ds.Discovery.Generators[typeURL].Generate(proxy, &model.WatchedResource{TypeUrl: typeURL, ResourceNames: sets.New(names...)}, request)
		if err != nil {
			t.Fatal(err)
		}
		out[typeURL] = map[string]*anypb.Any{}
		for _, r := range resources {
			out[typeURL][r.GetName()] = r.GetResource()
			if err := wanted.Collect(r.GetResource()); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask(recording.ClusterType)
	ask(recording.ListenerType)
	for typeURL, names := range wanted {
		ask(typeURL, slices.Collect(maps.Keys(names))...)
	}
	return out
}
