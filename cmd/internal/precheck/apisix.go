package precheck

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"meshbridge/translate/apisix"
)

// APISIX is one that the bridge starts, or that is configured by hand.
type APISIX struct {
	Home, Program, OpenResty string
	// WorkDir is where a copy of Home is made that can be written.
	WorkDir string
	// Version is what is translated for.
	Version apisix.Version
	// Configuration is what the bridge would write to conf/config.yaml; nil where that is not known.
	Configuration []byte
	// Started tells that the bridge starts it, and writes the file.
	Started bool
}

var versionNumber = regexp.MustCompile(`\b(\d+)\.(\d+)\.(\d+)\b`)

// Check looks at the programs, the version and the configuration.
func (a APISIX) Check(ctx context.Context) (results []Result) {
	if _, err := os.Stat(filepath.Join(a.Home, "conf")); err != nil {
		if !a.Started {
			return []Result{ok("APISIX", "none at %s: it runs elsewhere, with the file of \"meshbridge apisix-config\"", a.Home)}
		}
		return []Result{bad(Fail, "APISIX", "install it, or say where it is with --apisix-home", "%v", err)}
	}
	results = append(results, a.programs(ctx)...)
	if a.Started {
		directory := Writable("APISIX's directory", filepath.Join(a.Home, "conf"), "its owner must be the user of the bridge; where the file system is read-only, give --apisix-work-dir")(ctx)
		if Failed(directory) && a.WorkDir != "" {
			directory = Writable("APISIX's directory", a.WorkDir, "make it, for the user of the bridge")(ctx)
		}
		return append(results, directory...)
	}
	if a.Configuration == nil {
		return append(results, bad(Warn, "APISIX's configuration", "give the flags that \"meshbridge apisix-config\" needs, such as --http-ports", "not compared"))
	}
	return append(results, a.compare()...)
}

func (a APISIX) programs(ctx context.Context) (results []Result) {
	if a.Started {
		if path, err := exec.LookPath(a.OpenResty); err != nil {
			results = append(results, bad(Fail, "OpenResty", "say where it is with --openresty-bin", "%v", err))
		} else {
			results = append(results, ok("OpenResty", "%s", path))
		}
	}
	path, err := exec.LookPath(a.Program)
	if err != nil {
		return append(results, bad(Fail, "APISIX", "say where it is with --apisix-bin", "%v", err))
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "version")
	cmd.Dir = a.Home
	out, err := cmd.CombinedOutput()
	found := versionNumber.FindString(string(out))
	installed, errVersion := apisix.ParseVersion(found)
	switch {
	case err != nil || errVersion != nil:
		return append(results, bad(Warn, "APISIX", "run it by hand", "%s version: %v: %s", path, err, bytes.TrimSpace(out)))
	case installed.Major != a.Version.Major || installed.Minor != a.Version.Minor:
		do := fmt.Sprintf("give --apisix-version %d.%d", installed.Major, installed.Minor)
		status := Warn // it has what is translated for, and more
		if !installed.AtLeast(a.Version.Major, a.Version.Minor) {
			status = Fail
		}
		return append(results, bad(status, "APISIX", do, "it is %s, and %s is translated for", found, a.Version))
	}
	return append(results, ok("APISIX", "%s, %s", path, found))
}

// compare holds the file that is there against what would be rendered.
func (a APISIX) compare() []Result {
	const check = "APISIX's configuration"
	path := filepath.Join(a.Home, "conf", "config.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return []Result{bad(Fail, check, `"meshbridge apisix-config" prints it`, "%v", err)}
	}
	var have, want map[string]any
	if err := yaml.Unmarshal(data, &have); err != nil {
		return []Result{bad(Fail, check, "correct it", "%s: %v", path, err)}
	}
	if err := yaml.Unmarshal(a.Configuration, &want); err != nil {
		return []Result{bad(Fail, check, "correct the flags", "%v", err)}
	}
	differences := Differences(have, want)
	if len(differences) == 0 {
		return []Result{ok(check, "%s is what the bridge needs", path)}
	}
	return []Result{bad(Fail, check, `compare with what "meshbridge apisix-config" prints`, "%s: %s", path, strings.Join(differences, "; "))}
}

// Differences names what a configuration lacks, or has otherwise, of another. It may have more.
func Differences(have, want map[string]any) []string { return differences("", have, want) }

func differences(at string, have, want any) (found []string) {
	switch want := want.(type) {
	case map[string]any:
		members, _ := have.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(want)) {
			found = append(found, differences(strings.TrimPrefix(at+"."+name, "."), members[name], want[name])...)
		}
		return found
	case []any:
		// Plugins are a set; a missing one would be skipped by APISIX in silence.
		list, _ := have.([]any)
		if at == "plugins" || at == "stream_plugins" {
			for _, plugin := range want {
				if !slices.Contains(list, plugin) {
					found = append(found, fmt.Sprintf("%s lacks %v", at, plugin))
				}
			}
			return found
		}
	}
	if !reflect.DeepEqual(have, want) {
		found = append(found, fmt.Sprintf("%s is %v, want %v", at, have, want))
	}
	return found
}
