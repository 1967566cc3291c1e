package apisixtest

import (
	"fmt"
	"time"
)

// Versions of APISIX that a Client can be. Each stands for the releases that speak to etcd as it does.
const (
	V2_15 = "2.15"
	V3_2  = "3.2"
	V3_18 = "3.18"
)

// Versions returns all versions, oldest first.
func Versions() []string { return []string{V2_15, V3_2, V3_18} }

// traits is what differs between versions.
type traits struct {
	dirs []string
	// watchPerDir: a watch per directory, on a new connection after each batch of events. Otherwise
	// one watch of the whole prefix per process.
	watchPerDir bool
	// needsDirKeys: the first key-value of a directory is taken for the directory's own and dropped.
	needsDirKeys bool
	// noticesRestart: a header.revision below the one waited for makes it read everything again.
	noticesRestart bool
	// indexOnlyRises: what a directory has seen never goes back, also when it is read again.
	indexOnlyRises bool
	// keepsUnchanged: when it is read again, an item with the mod_revision of the one it has stays,
	// without a look at the value, and so does the old one if the new one is invalid.
	keepsUnchanged bool
	// watchTimeout is how long a watch may be silent before the client opens a new one.
	watchTimeout time.Duration
}

func traitsOf(version string) (traits, error) {
	switch version {
	case V2_15:
		return traits{
			dirs: []string{
				"routes", "upstreams", "services", "consumers", "ssl", "global_rules", "plugin_configs",
				"plugin_metadata", "proto", "stream_routes", "plugins",
			},
			watchPerDir: true, needsDirKeys: true, indexOnlyRises: true, watchTimeout: 30 * time.Second,
		}, nil
	case V3_2:
		return traits{
			dirs: currentDirs(), needsDirKeys: true, indexOnlyRises: true, watchTimeout: 50 * time.Second,
		}, nil
	case V3_18:
		return traits{
			dirs: currentDirs(), noticesRestart: true, keepsUnchanged: true, watchTimeout: 50 * time.Second,
		}, nil
	default:
		return traits{}, fmt.Errorf("apisixtest: no such version: %q", version)
	}
}

// currentDirs are the directories since 3.0.
func currentDirs() []string {
	return []string{
		"upstreams", "plugins", "ssls", "stream_routes", "plugin_metadata", "routes", "services",
		"consumers", "global_rules", "protos", "plugin_configs", "consumer_groups", "secrets",
	}
}
