package extend_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meshbridge/cmd/internal/extend"
	"meshbridge/translate"
)

var overlay = netip.MustParsePrefix("127.96.0.0/11")

const (
	ratings = "9080|ratings.default.svc.cluster.local:9080|default"
	details = "9080|details.default.svc.cluster.local:9080|default"
)

func TestPluginsGoToTheRoutesOfAHost(t *testing.T) {
	set := load(t, config(), nil, `
kind: Plugins
name: keys
selector: {hosts: [ratings.default.svc.cluster.local]}
plugins:
  key-auth: {header: x-key}
`)
	w := newWorld(t, "direct", recording(t, "bookinfo-client"), set)
	equal(t, plugin(t, w.route(t, ratings), "key-auth"), `{header: x-key}`)
	if p := plugins(w.route(t, details)); p["key-auth"] != nil {
		t.Errorf("details has %v", p)
	}
	// Requests to that host on ports where nothing is known of it are protected, too.
	equal(t, plugin(t, w.route(t, "8080|allow_any|allow_any"), "key-auth"),
		`{_meta: {filter: [[host, ==, ratings.default.svc.cluster.local]]}, header: x-key}`)
	if codes := w.codes(); len(codes) > 0 {
		t.Error(codes)
	}
}

func TestExtensionsChangeNothingElse(t *testing.T) {
	snapshot := recording(t, "bookinfo-client")
	set := load(t, config(), nil, "kind: Plugins\nname: all\nplugins: {limit-count: {count: 5, time_window: 60}}")
	without, with := newWorld(t, "mesh", snapshot, nil), newWorld(t, "mesh", snapshot, set)
	extended := 0
	for key, o := range with.objects {
		if labels, _ := o["labels"].(map[string]any); labels[translate.LabelExtensions] != nil {
			extended++
			delete(labels, translate.LabelExtensions)
		}
		delete(plugins(o), "limit-count")
		if plugins(o) != nil && len(plugins(o)) == 0 {
			delete(o, "plugins")
		}
		if diff := cmp.Diff(without.objects[key], o); diff != "" {
			t.Errorf("%s:\n%s", key, diff)
		}
	}
	if extended == 0 || len(with.objects) != len(without.objects) {
		t.Errorf("%d extended, %d and %d objects", extended, len(with.objects), len(without.objects))
	}
}

func TestSelectorsAreInTheTermsOfEnvoyAndIstio(t *testing.T) {
	snapshot := recording(t, "bookinfo-client")
	for selector, want := range map[string]string{
		`{routes: [redir], hosts: [reviews], chains: [{port: 9080}]}`:                                  "9080|reviews.default.svc.cluster.local:9080|redir",
		`{clusters: ["outbound|9080||rat*gs.*"]}`:                                                      ratings,
		`{labels: {envoy.vhost: "ratings.default.svc.cluster.local:9080"}}`:                            ratings,
		`{hosts: ["ratings.*"]}`:                                                                       "",
		`{chains: [{direction: inbound}]}`:                                                             "",
		`{chains: [{port: 9080}], hosts: ["RATINGS"]}`:                                                 ratings,
		`{chains: [{routeConfiguration: "9080"}], hosts: ["ratings"], clusters: ["outbound|9080||*"]}`: ratings,
		`{virtualServices: [default/nowhere]}`:                                                         "",
	} {
		set := load(t, config(), nil, "kind: Plugins\nname: x\nselector: "+selector+"\nplugins: {gzip: {}}")
		w := newWorld(t, "direct", snapshot, set)
		if strings.Contains(selector, `ratings.*`) {
			if len(set.Problems()) != 1 {
				t.Errorf("%s: %v", selector, set.Problems())
			}
			continue
		}
		var got []string
		for _, name := range w.extended("x") {
			if !strings.Contains(name, "allow_any") && !strings.Contains(name, "auto.") && !strings.HasSuffix(name, "|404") {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s selects %q, want %q", selector, got, want)
		}
	}
	w := newWorld(t, "direct", snapshot, load(t, config(), nil, "kind: Plugins\nname: x\nselector: {virtualServices: [default/reviews]}\nplugins: {gzip: {}}"))
	if len(w.extended("x")) < 3 {
		t.Error(w.extended("x"))
	}
	for key, o := range w.objects {
		labels, _ := o["labels"].(map[string]any)
		if name := key; labels[translate.LabelExtensions] == nil {
			continue
		} else if desc := o["desc"]; desc != "VirtualService default/reviews" {
			t.Errorf("%s is from %v", name, desc)
		}
	}
}

func TestASelectorThatMatchesNothingIsReported(t *testing.T) {
	set := load(t, config(), nil, "kind: Plugins\nname: typo\nselector: {hosts: [reviws]}\nplugins: {key-auth: {}}",
		"kind: Plugins\nname: others\nworkloadSelector: {matchLabels: {app: other}}\nselector: {hosts: [nowhere]}\nplugins: {key-auth: {}}")
	w := newWorld(t, "direct", recording(t, "bookinfo-client"), set)
	equal(t, w.codes(), `["extension_unused: Extension typo: it selects no route"]`)
}

func TestPathsNarrowARouteToRequests(t *testing.T) {
	set := load(t, config(), nil, `
kind: Plugins
name: keys
selector: {hosts: [ratings], paths: [/admin/*, /status]}
plugins: {key-auth: {_meta: {filter: [[request_method, ==, POST]]}}}
`)
	w := newWorld(t, "direct", recording(t, "bookinfo-client"), set)
	equal(t, plugin(t, w.route(t, ratings), "key-auth"),
		`{_meta: {filter: [[request_method, ==, POST], [OR, [uri, "~~", '\A/admin/'], [uri, ==, /status]]]}}`)
}

// A plugin that the mesh's configuration has on a route is what it needs.
func TestConflictsWithTheMesh(t *testing.T) {
	snapshot := recording(t, "bookinfo-client")
	const split = "9080|reviews.default.svc.cluster.local:9080|split|to-outbound|9080|v3|reviews.default.svc.cluster.local"
	base := newWorld(t, "direct", snapshot, nil)
	for name, c := range map[string]struct {
		document string
		reports  []string // empty where it is added
		has      string   // the plugin that is compared
		want     string
	}{
		"add refuses": {
			`merge: add
plugins: {proxy-rewrite: {headers: {set: {x-a: b}}}}`, []string{"extension_refused", "merge: merge adds headers"}, "", "",
		},
		"merge adds headers": {
			`merge: merge
plugins: {proxy-rewrite: {headers: {set: {x-a: b}, remove: [x-c]}}}`, nil, "proxy-rewrite",
			`{headers: {remove: [x-forwarded-client-cert, x-c], set: {x-a: b, x-envoy-attempt-count: "1", x-global: "1"}}, host: new.host, uri: /rewritten}`,
		},
		"headers that a client could forge": {
			`merge: merge
plugins: {proxy-rewrite: {headers: {X-Forwarded-Client-Cert: me}}}`, []string{"extension_refused", "decides about header X-Forwarded-Client-Cert"}, "", "",
		},
		"merge takes headers only": {
			`merge: merge
plugins: {proxy-rewrite: {uri: /x}}`, []string{"extension_refused", "not uri"}, "", "",
		},
		"replace": {
			`merge: replace
plugins: {limit-conn: {conn: 5, burst: 0, default_conn_delay: 0.1, key: host}}`, nil, "limit-conn",
			`{burst: 0, conn: 5, default_conn_delay: 0.1, key: host}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			set := load(t, config(), nil, "kind: Plugins\nname: x\nselector: {hosts: [reviews], routes: [split]}\n"+c.document)
			if p := set.Problems(); len(p) > 0 {
				t.Fatal(p)
			}
			w := newWorld(t, "direct", snapshot, set)
			if c.reports != nil {
				w.reports(t, c.reports...)
				if diff := cmp.Diff(base.route(t, split), w.route(t, split)); diff != "" {
					t.Error(diff)
				}
				return
			}
			if codes := w.codes(); len(codes) > 0 {
				t.Error(codes)
			}
			equal(t, plugin(t, w.route(t, split), c.has), c.want)
		})
	}
}

func TestAnswersOfTheMeshStay(t *testing.T) {
	set := load(t, config(), nil, "kind: Plugins\nname: x\nmerge: replace\nselector: {routes: [redir]}\nplugins: {redirect: {uri: /x}}")
	w := newWorld(t, "direct", recording(t, "bookinfo-client"), set)
	w.reports(t, "extension_refused", "needs it")
	if names := w.extended("x"); len(names) > 0 {
		t.Error(names)
	}
}

// What protects a route and cannot be added leaves it closed, not open.
func TestWhatCannotProtectDenies(t *testing.T) {
	snapshot := recording(t, "bookinfo-client")
	for name, document := range map[string]string{
		"not loaded":  "plugins: {our-own-auth: {}}",
		"bad config":  "plugins: {key-auth: {header: 5}}",
		"unknown key": "plugin: {}\nplugins: {key-auth: {}}",
		"too early":   "plugins: {ext-plugin-pre-req: {}}",
	} {
		t.Run(name, func(t *testing.T) {
			text := "kind: Plugins\nname: x\nselector: {hosts: [ratings]}\n" + document
			w := newWorld(t, "direct", snapshot, load(t, config(), nil, text))
			w.reports(t, "extension_invalid", "0.yaml, document 1 (Plugins x)", "answers 403")
			w.reports(t, "unenforced_extension")
			equal(t, plugins(w.route(t, ratings)), `{fault-injection: {abort: {body: "", http_status: 403}}}`)
			if p := plugins(w.route(t, details)); p["fault-injection"] != nil {
				t.Errorf("details: %v", p)
			}
			o := options(t, "direct")
			o.AllowUnenforced = []translate.Code{translate.CodeUnenforcedExtension}
			state, _, err := translate.Translate(o, snapshot, translate.Inputs{Extensions: load(t, config(), nil, text)})
			if err != nil {
				t.Fatal(err)
			}
			open := &world{state, objectsOf(t, state)}
			if p := plugins(open.route(t, ratings)); p["fault-injection"] != nil {
				t.Errorf("allowed to be open: %v", p)
			}
		})
	}
	w := newWorld(t, "direct", snapshot, load(t, config(), nil, "kind: Plugins\nname: x\nselector: {hosts: [ratings]}\nplugins: {gzip: {comp_level: 900}}"))
	w.reports(t, "extension_invalid", "it is left out")
	if p := plugins(w.route(t, ratings)); p["fault-injection"] != nil {
		t.Error("what restricts nothing denies")
	}
}

func TestDocumentsOfOnePlugin(t *testing.T) {
	snapshot := recording(t, "bookinfo-client")
	one := "kind: Plugins\nname: one\nselector: {hosts: [ratings]}\nplugins: {limit-count: {count: 1, time_window: 1}}"
	two := "kind: Plugins\nname: two\npriority: 5\nplugins: {limit-count: {count: 2, time_window: 1}}"
	w := newWorld(t, "direct", snapshot, load(t, config(), nil, one, two))
	equal(t, plugin(t, w.route(t, ratings), "limit-count"), `{count: 2, time_window: 1}`)
	w.reports(t, "extension_shadowed", "of one has no effect here", "is two's")

	header := func(name, header string) string {
		return "kind: Plugins\nname: " + name + "\nmerge: merge\nselector: {hosts: [ratings]}\nplugins: {response-rewrite: {headers: {set: {" + header + ": " + name + "}}}}"
	}
	w = newWorld(t, "direct", snapshot, load(t, config(), nil, header("a", "x-a"), header("b", "x-b"), header("c", "X-A")))
	equal(t, plugin(t, w.route(t, ratings), "response-rewrite"), `{headers: {set: {x-a: a, x-b: b}}}`)
	w.reports(t, "extension_refused", "a decides about header X-A")

	// The first is for some paths, so that it cannot stand for the second.
	narrow := "kind: Plugins\nname: narrow\npriority: 9\nselector: {hosts: [ratings], paths: [/a]}\nplugins: {ip-restriction: {whitelist: [10.0.0.0/8]}}"
	wide := "kind: Plugins\nname: wide\nselector: {hosts: [ratings]}\nplugins: {ip-restriction: {whitelist: [192.0.2.0/24]}}"
	w = newWorld(t, "direct", snapshot, load(t, config(), nil, narrow, wide))
	w.reports(t, "unenforced_extension", "ip-restriction of wide")
	equal(t, plugins(w.route(t, ratings)), `{fault-injection: {abort: {body: "", http_status: 403}}}`)
}

func TestPluginsOfTCPServices(t *testing.T) {
	snapshot := recording(t, "tcp-client")
	set := load(t, config(), nil, "kind: StreamPlugins\nname: lan\nselector: {clusters: [\"outbound|*|*|*\"]}\nplugins: {ip-restriction: {whitelist: [10.0.0.0/8]}}")
	w := newWorld(t, "mesh", snapshot, set)
	found := 0
	for key, o := range w.objects {
		if strings.HasPrefix(key, "stream_routes/") && plugins(o)["ip-restriction"] != nil {
			found++
		}
	}
	if found == 0 || len(w.codes()) > 0 {
		t.Errorf("%d stream_routes, %v", found, w.codes())
	}
	w = newWorld(t, "mesh", snapshot, load(t, config(), nil, "kind: StreamPlugins\nname: lan\nplugins: {no-such: {}}"))
	for key, o := range w.objects {
		if strings.HasPrefix(key, "stream_routes/") {
			equal(t, plugin(t, o, "ip-restriction"), `{blacklist: [0.0.0.0/0, "::/0"]}`)
		}
	}
}

func TestObjectsOfUsers(t *testing.T) {
	set := load(t, config(), nil, `
kind: Consumer
name: jack
spec: {plugins: {key-auth: {key: k}}, group_id: gold}
---
kind: ConsumerGroup
name: gold
spec: {plugins: {limit-count: {count: 5, time_window: 60}}}
---
kind: GlobalRule
name: "1"
spec: {plugins: {prometheus: {}}}
---
kind: PluginMetadata
name: http-logger
spec: {log_format: {host: $host}}
---
kind: Proto
name: greeter
spec: {content: "syntax = \"proto3\";"}
---
kind: Secret
name: vault/1
spec: {uri: "http://vault:8200", prefix: kv, token: t}
---
# for another workload
kind: Consumer
name: jill
workloadSelector: {matchExpressions: [{key: app, operator: NotIn, values: [client]}]}
spec: {plugins: {key-auth: {key: j}}}
`)
	w := newWorld(t, "direct", recording(t, "bookinfo-client"), set)
	if codes := w.codes(); len(codes) > 0 {
		t.Error(codes)
	}
	for key, want := range map[string]string{
		"consumers/jack":              `{group_id: gold, plugins: {key-auth: {key: k}}, username: jack}`,
		"consumer_groups/gold":        `{id: gold, plugins: {limit-count: {count: 5, time_window: 60}}}`,
		"global_rules/1":              `{id: "1", plugins: {prometheus: {}}}`,
		"plugin_metadata/http-logger": `{id: http-logger, log_format: {host: $host}}`,
		"protos/greeter":              `{content: "syntax = \"proto3\";", id: greeter}`,
		"secrets/vault/1":             `{id: "1", prefix: kv, token: t, uri: "http://vault:8200"}`,
	} {
		equal(t, w.objects[key], want)
	}
	if w.objects["consumers/jill"] != nil {
		t.Error("jill is for another workload")
	}
	for o := range w.state.Objects() {
		if text := string(o.Redacted().Value); strings.HasPrefix(o.Key(), "consumers/") && strings.Contains(text, `"k"`) {
			t.Errorf("redacted: %s", text)
		}
	}
}

func TestObjectsThatAreRefused(t *testing.T) {
	for document, why := range map[string]string{
		"kind: GlobalRule\nname: x\nspec: {plugins: {proxy-rewrite: {headers: {set: {a: b}}}}}":                               "before rules of access see them",
		"kind: GlobalRule\nname: x\nspec: {plugins: {key-auth: {hide_credentials: true}}}":                                    "before rules of access see them",
		"kind: GlobalRule\nname: x\nspec: {plugins: {gzip: {_meta: {pre_function: \"return function() end\"}}}}":              "before rules of access see them",
		"kind: GlobalRule\nname: x\nspec: {plugins: {gzip: {}}}\n---\nkind: GlobalRule\nname: z\nspec: {plugins: {gzip: {}}}": "APISIX would run neither",
		"kind: Consumer\nname: x\nspec: {plugins: {fault-injection: {delay: {duration: 1}}}}":                                 "by which rules of access are enforced",
		"kind: Consumer\nname: x\nspec: {plugins: {proxy-rewrite: {uri: /x}}}":                                                "could change requests",
		"kind: Consumer\nname: x\nspec: {plugins: {key-auth: {}, jwt-auth: {secret: 5}}}":                                     "plugin jwt-auth",
		"kind: Consumer\nname: a b\nspec: {}":                                                                                 "white space",
		"kind: Consumer\nname: x\nspec: {username: z}":                                                                        "spec.username is z",
		"kind: Consumer\nname: x\nspec: {extra: z}":                                                                           "additional properties",
		"kind: PluginMetadata\nname: nothing\nspec: {}":                                                                       "not in APISIX's list",
		"kind: Secret\nname: x\nspec: {}":                                                                                     "does not match",
		"kind: Thing\nname: x\nspec: {}":                                                                                      `kind "Thing" is none of`,
		"kind: Proto\nspec: {content: x}":                                                                                     "name is missing",
		"kind: Plugins\nname: x\nplugins: {real-ip: {source: http_x_real_ip}}":                                                "give it a _meta.priority below 11000",
		"kind: Plugins\nname: x\nselector: {hosts: []}\nplugins: {gzip: {}}":                                                  "selector.hosts is empty",
		"kind: Plugins\nname: x\nselector: {hosts: [a], host: b}\nplugins: {gzip: {}}":                                        "unknown field",
		"kind: Plugins\nname: x\nplugins: {gzip: }":                                                                           "plugins.gzip is no object",
		"kind: Plugins\nname: x\nplugins: {gzip: {}}\nplugins: {gzip: {}}":                                                    "already set",
		"kind: Plugins\nname: x\nplugins: {gzip: {_meta: {filter: [[uri, what, x]]}}}":                                        "_meta.filter",
		"- kind: Plugins": "cannot unmarshal",
		"{":               "is not YAML",
	} {
		w := newWorld(t, "direct", recording(t, "tcp-client"), load(t, config(), nil, document))
		w.reports(t, "extension_invalid", why)
	}
}

func TestABadEditKeepsTheLastGoodVersion(t *testing.T) {
	snapshot := recording(t, "bookinfo-client")
	good := load(t, config(), nil, "kind: Plugins\nname: keys\nselector: {hosts: [ratings]}\nplugins: {key-auth: {header: one}}\n---\nkind: Consumer\nname: jack\nspec: {plugins: {key-auth: {key: k}}}")
	check := func(t *testing.T, set *extend.Set, header string, consumer bool) {
		t.Helper()
		w := newWorld(t, "direct", snapshot, set)
		equal(t, plugin(t, w.route(t, ratings), "key-auth"), "{header: "+header+"}")
		if (w.objects["consumers/jack"] != nil) != consumer {
			t.Errorf("consumer: %v", w.objects["consumers/jack"])
		}
	}
	bad := load(t, config(), good, "kind: Plugins\nname: keys\nselector: {hosts: [ratings]}\nplugins: {key-auth: {header: 2}}\n---\nkind: Consumer\nname: jack\nspec: {plugins: {key-auth: {key: other}}}")
	check(t, bad, "one", true)
	newWorld(t, "direct", snapshot, bad).reports(t, "extension_invalid", "the version before it is served on")
	equal(t, newWorld(t, "direct", snapshot, bad).objects["consumers/jack"], "{plugins: {key-auth: {key: other}}, username: jack}")

	// Whatever nobody can read might be any document of the file.
	broken := load(t, config(), bad, "kind: [\n---\nkind: Consumer\nname: jack\nspec: {plugins: {key-auth: {key: third}}}")
	check(t, broken, "one", true)
	check(t, load(t, config(), broken, "kind: Plugins\nname: keys\nselector: {hosts: [ratings]}\nplugins: {key-auth: {header: three}}"), "three", false)
	if gone := load(t, config(), good); len(gone.Documents()) > 0 || len(gone.Objects()) > 0 {
		t.Error("an empty directory has something")
	}
}
