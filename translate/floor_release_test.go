package translate_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// releases are those that are tried: the ones that are supported, and those around floors.
func releases() []apisix.Version {
	var out []apisix.Version
	for _, v := range []string{"2.15", "3.0", "3.2", "3.8", "3.14", "3.18"} {
		version, err := apisix.ParseVersion(v)
		if err != nil {
			panic(err)
		}
		out = append(out, version)
	}
	return out
}

// translations are the numbers of objects, by release.
type translations map[apisix.Version]int

// try translates a snapshot for each release, and checks that everything that is emitted is something
// that the release has.
func (n translations) try(t *testing.T, name string, snap *xds.Snapshot, options translate.Options, profiles ...translate.Profile) {
	t.Helper()
	for _, options.Profile = range profiles {
		for _, options.APISIXVersion = range releases() {
			s, _, err := translate.Translate(options, snap, translate.Inputs{})
			if err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("%s, profile %s, APISIX %s", name, options.Profile.Name(), options.APISIXVersion)
			for _, d := range s.Diagnostics() {
				if d.Code == "invalid_object" || d.Code == "apisix_too_old" && options.APISIXVersion.HasAll() {
					t.Errorf("%s: %s", what, d)
				}
			}
			n[options.APISIXVersion] += checkRelease(t, what, s, options.APISIXVersion)
		}
	}
}

// checkRelease returns the number of objects.
func checkRelease(t *testing.T, what string, s *translate.State, version apisix.Version) int {
	t.Helper()
	count := 0
	var routes []apisix.Route
	shared := map[string]apisix.Plugins{}
	for o := range s.Objects() {
		count++
		if err := apisix.Validate(o, version); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		var err error
		switch o.Kind {
		case apisix.KindRoute:
			var r apisix.Route
			err = json.Unmarshal(o.Value, &r)
			routes = append(routes, r)
		case apisix.KindPluginConfig:
			var c apisix.PluginConfig
			err = json.Unmarshal(o.Value, &c)
			shared[c.ID] = c.Plugins
		default:
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range routes {
		for plugin := range r.Plugins {
			if shared[r.PluginConfigID][plugin] != nil && !version.Has(apisix.FeaturePluginOfRoute) {
				t.Errorf("%s: %s has the %s of its plugin_config", what, r.ID, plugin)
			}
		}
	}
	return count
}

// Of recordings, cases and random routes, nothing is emitted whose floor is above the release.
func TestNothingIsEmittedThatTheReleaseDoesNotHave(t *testing.T) {
	n := translations{}
	direct, gateway := translate.Direct(0, 0), translate.Gateway()
	for _, r := range translate.Recordings(t) {
		n.try(t, r.Name, r.Snapshot, r.Options[0], translate.Mesh(), direct, gateway)
	}
	files, err := filepath.Glob("../testdata/cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parts := map[string][]byte{}
		for _, f := range archive.Files {
			parts[f.Name] = f.Data
		}
		options := translate.CaseOptions(t, parts["options.yaml"])
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		switch {
		case parts["xds.yaml"] != nil:
			n.try(t, name, translate.LoadYAML(t, string(parts["xds.yaml"])), options, options.Profile, direct, gateway)
		case parts["route.yaml"] != nil:
			n.try(t, name, actionSnapshot(t, parts), options, direct)
		}
	}
	for i := range 50 {
		c := (&generator{Rand: rand.New(rand.NewPCG(*seed, uint64(i))), tb: t}).world()
		n.try(t, fmt.Sprintf("random configuration %d", i), generatedSnapshot(t, c), translate.Options{}, direct)
	}
	for _, version := range releases() {
		t.Logf("APISIX %s: %d objects", version, n[version])
		if newest := n[releases()[len(releases())-1]]; n[version] < newest/2 {
			t.Errorf("APISIX %s gets %d objects, and the newest release %d", version, n[version], newest)
		}
	}
}
