package conformance

import (
	"context"
	"errors"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// The istiod command itself, before anything is concluded from it.

func TestIstiodFollowsItsDirectory(t *testing.T) {
	t.Parallel()
	manifests := harness.CopyManifests(t, demo)
	istiod := harness.StartIstiod(t, binaries.Istiod, manifests.Dir)

	waitConfig(t, istiod, `"jason"`, true)
	manifests.Replace(t, "reviews-routing.yaml", "exact: jason", "exact: jason-mraz")
	waitConfig(t, istiod, `"jason-mraz"`, true)
	manifests.Remove(t, "reviews-routing.yaml")
	waitConfig(t, istiod, `"jason-mraz"`, false)
}

func TestIstiodKeepsItsStateOverAMistake(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ old, replacement, want string }{
		"unknown field":   {"weight: 10", "weigth: 10", `reviews-routing.yaml document 1: VirtualService reviews: spec: unknown field \"weigth\"`},
		"wrong type":      {"weight: 10", "weight: ten", `reviews-routing.yaml document 1: VirtualService reviews: spec: `},
		"refused value":   {"weight: 10", "weight: -1", `reviews-routing.yaml document 1: VirtualService reviews: refused by Istio's validation: `},
		"not YAML":        {"- name: jason", "- name: {jason", `reviews-routing.yaml document 1: `},
		"second document": {"subsets:", "zubsets:", `reviews-routing.yaml document 2: DestinationRule reviews: spec: unknown field \"zubsets\"`},
		"unknown kind":    {"kind: DestinationRule", "kind: DestinationRuler", `reviews-routing.yaml document 2: networking.istio.io/v1 DestinationRuler: istiod does not read this kind`},
		"no name":         {"kind: DestinationRule\nmetadata: {name: reviews, ", "kind: DestinationRule\nmetadata: {", `reviews-routing.yaml document 2: DestinationRule: metadata.name is missing`},
		"defined twice":   {"kind: DestinationRule\nmetadata: {name: reviews,", "kind: DestinationRule\nmetadata: {name: reviews, namespace: default}\nspec: {host: a.example}\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews,", `reviews-routing.yaml document 3: destinationrules default/reviews is already defined in reviews-routing.yaml document 2`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			manifests := harness.CopyManifests(t, demo)
			istiod := harness.StartIstiod(t, binaries.Istiod, manifests.Dir)
			manifests.Replace(t, "reviews-routing.yaml", tt.old, tt.replacement)
			line := istiod.WaitLine(t, "report of the mistake", func(line string) bool { return strings.Contains(line, "previous state kept") })
			if !strings.Contains(line, tt.want) {
				t.Errorf("report %s\nlacks %s", line, tt.want)
			}
			waitConfig(t, istiod, `"jason"`, true)
			manifests.Replace(t, "reviews-routing.yaml", tt.replacement, tt.old)
			manifests.Replace(t, "reviews-routing.yaml", "exact: jason", "exact: mended")
			waitConfig(t, istiod, `"mended"`, true)
		})
	}
}

func waitConfig(t *testing.T, istiod *harness.Istiod, text string, present bool) {
	t.Helper()
	harness.Eventually(t, "configuration with "+text, func(ctx context.Context) error {
		config, err := istiod.Debug(ctx, "configz")
		if err == nil && strings.Contains(config, text) != present {
			err = errors.New("not yet: " + config)
		}
		return err
	})
}
