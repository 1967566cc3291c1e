package apisix

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func routeJSON(id, fields string) Object {
	return Object{KindRoute, id, []byte(`{"id":"` + id + `","priority":0,` + fields + `}`)}
}

// pluginObject is a route with one plugin.
func pluginObject(name, config string) Object {
	return routeJSON("r.1", `"uri":"/*","plugins":{"`+name+`":`+config+`}`)
}

// validationCase is an object and the field that the error about it must name.
type validationCase struct {
	object  Object
	version Version
	// field is empty for an object that is fine.
	field string
}

func TestValidate(t *testing.T) {
	for _, c := range slices.Concat(routeCases(), upstreamCases(), pluginCases(), otherCases()) {
		err := Validate(c.object, c.version)
		if c.field == "" {
			if err != nil {
				t.Errorf("%s: %v", c.object.Value, err)
			}
			continue
		}
		fieldErr, ok := errors.AsType[*FieldError](err)
		if !ok || fieldErr.Field != c.field || fieldErr.Object != c.object.Key() || fieldErr.Rule == "" {
			t.Errorf("%s: error %v, want one of field %s", c.object.Value, err, c.field)
		}
	}
}

func routeCases() []validationCase {
	ok := func(fields string) validationCase { return validationCase{object: routeJSON("r.1", fields)} }
	bad := func(field, fields string) validationCase {
		return validationCase{object: routeJSON("r.1", fields), field: field}
	}
	long := strings.Repeat("x", 257)
	return []validationCase{
		ok(`"uri":"/*","upstream_id":"u.1"`),
		ok(`"uris":["/foo","/foo/*"],"hosts":["a.com","*.a.com","*-x.a.com","[::1]","10.0.0.1","a_b"],"plugins":{"redirect":{"uri":"/x"}}`),
		ok(`"uri":"/:id","upstream_id":"u.1"`),
		ok(`"uri":"/a+b*","upstream_id":"u.1"`),
		ok(`"uri":"/a.b/~c@d/!,;=&'%-/*","upstream_id":"u.1"`),
		{object: routeJSON("r 1", `"uri":"/*","upstream_id":"u"`), field: "id"},
		{object: Object{KindRoute, "r.2", []byte(`{"id":"r.1","uri":"/*","upstream_id":"u"}`)}, field: "id"},
		{object: Object{KindRoute, "r.1", []byte(`{`)}, field: "value"},
		{object: Object{KindRoute, "r.1", []byte(`{"id":"r.1","uri":"/*","upstream_id":"u","unknown":1}`)}, field: "value"},
		bad("name", `"uri":"/*","upstream_id":"u","name":"`+long+`"`),
		bad("desc", `"uri":"/*","upstream_id":"u","desc":"`+long+`"`),
		bad("labels.a", `"uri":"/*","upstream_id":"u","labels":{"a":"b c"}`),
		bad("labels.a", `"uri":"/*","upstream_id":"u","labels":{"a":""}`),
		bad("hosts[1]", `"uri":"/*","upstream_id":"u","hosts":["a","b c"]`),
		bad("hosts[1]", `"uri":"/*","upstream_id":"u","hosts":["a","a"]`),
		bad("hosts[0]", `"uri":"/*","upstream_id":"u","hosts":["a.*"]`),
		bad("hosts[0]", `"uri":"/*","upstream_id":"u","hosts":["a.com:80"]`), // never matches
		bad("hosts[0]", `"uri":"/*","upstream_id":"u","hosts":["::1"]`),
		bad("hosts[0]", `"uri":"/*","upstream_id":"u","hosts":["[::1]:80"]`),
		bad("uri", `"upstream_id":"u"`),
		bad("uri", `"uri":"/","uris":["/"],"upstream_id":"u"`),
		bad("uri", `"uri":"a","upstream_id":"u"`),
		bad("uri", `"uri":"/`+strings.Repeat("x", 4096)+`","upstream_id":"u"`),
		bad("uri", `"uri":"/a*b","upstream_id":"u"`),
		bad("uri", `"uri":"/a/*/b","upstream_id":"u"`),
		bad("uri", `"uri":"/a+b/*","upstream_id":"u"`),  // is read as a regular expression
		bad("uri", `"uri":"/:id/*","upstream_id":"u"`),  // and so is this
		bad("uri", `"uri":"/:id/x*","upstream_id":"u"`), // and this
		bad("uris[1]", `"uris":["/","/a(/*"],"upstream_id":"u"`),
		bad("uris[1]", `"uris":["/a","/a"],"upstream_id":"u"`),
		bad("vars", `"uri":"/*","upstream_id":"u","vars":[["http_x","=~","a"]]`),
		bad("vars", `"uri":"/*","upstream_id":"u","vars":[["http_x","~~","("]]`),
		bad("timeout.read", `"uri":"/*","upstream_id":"u","timeout":{"connect":1,"send":1,"read":0}`),
		bad("timeout.connect", `"uri":"/*","upstream_id":"u","timeout":{"connect":0,"send":1,"read":1}`),
		bad("upstream_id", `"uri":"/*","upstream_id":"a b"`),
		bad("plugin_config_id", `"uri":"/*","upstream_id":"u","plugin_config_id":"`+long+`"`),
		bad("plugins", `"uri":"/*"`),
		bad("plugins", `"uri":"/*","plugin_config_id":"pc.1"`),
		bad("plugins.no-such-plugin", `"uri":"/*","plugins":{"no-such-plugin":{}}`),
		bad("value", `"uri":"/*","upstream_id":"u","timeout":1`),
	}
}

func upstreamCases() []validationCase {
	upstream := func(fields, field string) validationCase {
		return validationCase{object: Object{KindUpstream, "u.1", []byte(`{"id":"u.1",` + fields + `}`)}, field: field}
	}
	const nodes = `"nodes":[{"host":"10.0.0.1","port":80,"weight":1}]`
	return []validationCase{
		upstream(`"type":"least_conn","retries":0,"nodes":[]`, ""),
		upstream(`"type":"chash","hash_on":"header","key":"x-user",`+nodes, ""),
		upstream(`"type":"chash","hash_on":"cookie","key":"sid",`+nodes, ""),
		upstream(`"type":"chash","key":"arg_q",`+nodes, ""),
		upstream(`"type":"chash","hash_on":"vars_combinations","key":"$http_a$arg_b",`+nodes, ""),
		upstream(`"type":"roundrobin","checks":{"active":{}},"nodes":[{"host":"::1","port":80,"weight":0,"priority":-1},{"host":"a.b","port":80,"weight":1}]`, ""),
		upstream(`"type":"random",`+nodes, "type"), // every request would be 500
		upstream(`"type":"",`+nodes, "type"),
		upstream(`"type":"roundrobin"`, "nodes"),
		upstream(`"type":"roundrobin","nodes":[{"host":"a b","port":80,"weight":1}]`, "nodes[0].host"),
		upstream(`"type":"roundrobin","nodes":[{"host":"a","port":0,"weight":1}]`, "nodes[0].port"),
		upstream(`"type":"roundrobin","nodes":[{"host":"a","port":65536,"weight":1}]`, "nodes[0].port"),
		upstream(`"type":"roundrobin","nodes":[{"host":"a","port":1,"weight":-1}]`, "nodes[0].weight"),
		upstream(`"type":"roundrobin","nodes":[{"host":"a","port":1,"weight":1},{"host":"a","port":1,"weight":1}]`, "nodes[1]"),
		upstream(`"type":"chash",`+nodes, "key"),
		upstream(`"type":"chash","key":"proxy_protocol_addr",`+nodes, "key"),
		upstream(`"type":"chash","hash_on":"header","key":"x user",`+nodes, "key"),
		upstream(`"type":"chash","hash_on":"vars_combinations",`+nodes, "key"),
		upstream(`"type":"chash","hash_on":"body","key":"a",`+nodes, "hash_on"),
		upstream(`"type":"roundrobin","scheme":"h2",`+nodes, "scheme"),
		upstream(`"type":"roundrobin","pass_host":"keep",`+nodes, "pass_host"),
		upstream(`"type":"roundrobin","pass_host":"rewrite",`+nodes, "upstream_host"),
		upstream(`"type":"roundrobin","upstream_host":"a/b",`+nodes, "upstream_host"),
		upstream(`"type":"roundrobin","retries":-1,`+nodes, "retries"),
		upstream(`"type":"roundrobin","retry_timeout":-1,`+nodes, "retry_timeout"),
		upstream(`"type":"roundrobin","timeout":{"connect":1,"read":1},`+nodes, "timeout.send"),
		upstream(`"type":"roundrobin","keepalive_pool":{"size":0,"idle_timeout":1,"requests":1},`+nodes, "keepalive_pool.size"),
		upstream(`"type":"roundrobin","keepalive_pool":{"size":1,"idle_timeout":-1,"requests":1},`+nodes, "keepalive_pool.idle_timeout"),
		upstream(`"type":"roundrobin","keepalive_pool":{"size":1,"idle_timeout":1,"requests":0},`+nodes, "keepalive_pool.requests"),
		upstream(`"type":"roundrobin","checks":{"passive":{}},`+nodes, "checks.active"),
	}
}

func pluginCases() []validationCase {
	ok := func(name, config string) validationCase { return validationCase{object: pluginObject(name, config)} }
	bad := func(name, field, config string) validationCase {
		if field != "" {
			field = "." + field
		}
		return validationCase{object: pluginObject(name, config), field: "plugins." + name + field}
	}
	since := func(version Version, name, field, config string) validationCase {
		c := bad(name, field, config)
		c.version = version
		return c
	}
	manyVars := strings.TrimSuffix(strings.Repeat(`[["a","==","b"]],`, 21), ",")
	manyUpstreams := strings.TrimSuffix(strings.Repeat(`{"upstream_id":"u"},`, 21), ",")
	return []validationCase{
		ok("fault-injection", `{"abort":{"http_status":200,"body":"","headers":{"grpc-status":"14","a":1},"vars":[[["a","==","b"]]]},"delay":{"duration":0}}`),
		bad("fault-injection", "", `{}`),
		bad("fault-injection", "", `{"abort":{"http_status":"200"}}`),
		bad("fault-injection", "abort.http_status", `{"abort":{"http_status":100}}`),
		bad("fault-injection", "abort.http_status", `{"abort":{}}`),
		bad("fault-injection", "abort.headers", `{"abort":{"http_status":200,"headers":{}}}`),
		bad("fault-injection", "abort.headers", `{"abort":{"http_status":200,"headers":{"a:b":"c"}}}`),
		bad("fault-injection", "abort.headers.a", `{"abort":{"http_status":200,"headers":{"a":["b"]}}}`),
		since(Version{3, 2}, "fault-injection", "abort.headers", `{"abort":{"http_status":200,"headers":{"a":"b"}}}`),
		bad("fault-injection", "abort.percentage", `{"abort":{"http_status":200,"percentage":101}}`),
		bad("fault-injection", "abort.vars[0]", `{"abort":{"http_status":200,"vars":[["a","==","b"]]}}`), // wants one more array
		bad("fault-injection", "delay.vars", `{"delay":{"duration":1,"vars":[`+manyVars+`]}}`),
		bad("fault-injection", "delay.duration", `{"delay":{"duration":-1}}`),
		bad("fault-injection", "_meta.filter", `{"_meta":{"filter":["a","==","b"]},"delay":{"duration":1}}`),

		ok("proxy-rewrite", `{"use_real_request_uri_unsafe":true,"headers":{"add":{"a":["b",1]},"set":{"c":"d"},"remove":["e"]}}`),
		ok("proxy-rewrite", `{"regex_uri":["^/a","/b","^(?=c)","/d"],"host":"a.b:80","method":"GET"}`),
		bad("proxy-rewrite", "", `{}`),
		bad("proxy-rewrite", "uri", `{"uri":"a"}`),
		bad("proxy-rewrite", "method", `{"method":"BREW"}`),
		bad("proxy-rewrite", "regex_uri", `{"regex_uri":["a","b","c"]}`),
		bad("proxy-rewrite", "regex_uri[0]", `{"regex_uri":["(","b"]}`),
		bad("proxy-rewrite", "host", `{"host":"a_b"}`), // an upstream with pass_host rewrite can
		bad("proxy-rewrite", "headers", `{"headers":{}}`),
		bad("proxy-rewrite", "headers.set", `{"headers":{"set":{}}}`),
		bad("proxy-rewrite", "headers.set", `{"headers":{"set":{"a b":"c"}}}`),
		bad("proxy-rewrite", "headers.set.a", `{"headers":{"set":{"a":null}}}`),
		bad("proxy-rewrite", "headers.add.a", `{"headers":{"add":{"a":[]}}}`),
		bad("proxy-rewrite", "headers.remove", `{"headers":{"remove":[]}}`),
		since(Version{3, 17}, "proxy-rewrite", "headers.add.a", `{"headers":{"add":{"a":["b"]}}}`),
		since(Version{3, 0}, "proxy-rewrite", "headers", `{"headers":{"set":{"a":"b"}}}`),

		ok("response-rewrite", `{"status_code":200,"vars":[["a","==","b"]],"headers":{"add":["a: b"],"set":{"c":"d: e/"},"remove":["f"]}}`),
		bad("response-rewrite", "status_code", `{"status_code":599}`),
		bad("response-rewrite", "vars", `{"vars":["a"]}`),
		bad("response-rewrite", "body", `{"body":"a","filters":[]}`),
		bad("response-rewrite", "headers", `{"headers":{}}`),
		bad("response-rewrite", "headers.add[0]", `{"headers":{"add":["location: http://a"]}}`), // loses all header operations
		bad("response-rewrite", "headers.add[0]", `{"headers":{"add":["a: b/"]}}`),
		bad("response-rewrite", "headers.add[0]", `{"headers":{"add":["a"]}}`),
		bad("response-rewrite", "headers.add[0]", `{"headers":{"add":["a:"]}}`),

		ok("redirect", `{"uri":"https://$host$real_request_uri","ret_code":301}`),
		ok("redirect", `{"regex_uri":["^.*$","/"]}`),
		bad("redirect", "", `{}`),
		bad("redirect", "", `{"uri":"/a","http_to_https":true}`),
		bad("redirect", "uri", `{"uri":"/"}`),
		bad("redirect", "regex_uri", `{"regex_uri":["a"]}`),
		bad("redirect", "regex_uri", `{"regex_uri":["(","b"]}`),
		bad("redirect", "ret_code", `{"uri":"/a","ret_code":100}`),
		bad("redirect", "append_query_string", `{"http_to_https":true,"append_query_string":true}`),

		ok("traffic-split", `{"rules":[{"match":[{"vars":[["a","==","b"]]}],"weighted_upstreams":[{"upstream_id":"a","weight":0},{"weight":1}]}]}`),
		bad("traffic-split", "rules[0].weighted_upstreams", `{"rules":[{"weighted_upstreams":[]}]}`),
		bad("traffic-split", "rules[0].weighted_upstreams", `{"rules":[{"weighted_upstreams":[`+manyUpstreams+`]}]}`),
		bad("traffic-split", "rules[0].weighted_upstreams[0].weight", `{"rules":[{"weighted_upstreams":[{"weight":-1}]}]}`),
		bad("traffic-split", "rules[0].weighted_upstreams[0].upstream_id", `{"rules":[{"weighted_upstreams":[{"upstream_id":""}]}]}`),
		bad("traffic-split", "rules[0].weighted_upstreams[1].upstream_id", `{"rules":[{"weighted_upstreams":[{"upstream_id":"a"},{"upstream_id":"a"}]}]}`),
		bad("traffic-split", "rules[0].match[0].vars", `{"rules":[{"match":[{}],"weighted_upstreams":[{}]}]}`),

		ok("workflow", `{"rules":[{"case":[["a","==","b"]],"actions":[["return",{"code":403}]]},{"actions":[["limit-conn",{}]]}]}`),
		bad("workflow", "rules", `{}`),
		bad("workflow", "rules[0].case", `{"rules":[{"case":[],"actions":[["return",{"code":403}]]}]}`),
		bad("workflow", "rules[0].case", `{"rules":[{"case":["!OR",["a","==","b"]],"actions":[["return",{"code":403}]]}]}`), // would always hold
		bad("workflow", "rules[0].actions", `{"rules":[{}]}`),
		bad("workflow", "rules[0].actions[0]", `{"rules":[{"actions":[["return"]]}]}`),
		bad("workflow", "rules[0].actions[0]", `{"rules":[{"actions":[["redirect",{}]]}]}`),
		bad("workflow", "rules[0].actions[0]", `{"rules":[{"actions":[["return",{"code":99}]]}]}`),
		since(Version{2, 15}, "workflow", "", `{"rules":[]}`),

		ok("proxy-mirror", `{"host":"http://10.0.0.1:80","sample_ratio":0.5,"path":"/a"}`),
		bad("proxy-mirror", "host", `{"host":"10.0.0.1"}`),
		bad("proxy-mirror", "path", `{"host":"http://a","path":"/a?b"}`),
		bad("proxy-mirror", "sample_ratio", `{"host":"http://a","sample_ratio":0}`),

		ok("cors", `{"allow_origins":"https://a,https://b","max_age":1}`),
		bad("cors", "allow_origins", `{"allow_origins":"a"}`),
		bad("cors", "allow_origins_by_regex[0]", `{"allow_origins_by_regex":["("]}`),
		bad("cors", "allow_credential", `{"allow_origins":"https://a","allow_credential":true}`),

		ok("limit-conn", `{"conn":1,"burst":0,"default_conn_delay":0.01,"key_type":"var_combination","key":"${hostname}-c","rejected_code":503}`),
		bad("limit-conn", "conn", `{"conn":0,"burst":0,"default_conn_delay":0.01,"key":"a"}`),
		bad("limit-conn", "burst", `{"conn":1,"burst":-1,"default_conn_delay":0.01,"key":"a"}`),
		bad("limit-conn", "default_conn_delay", `{"conn":1,"burst":0,"key":"a"}`),
		bad("limit-conn", "key", `{"conn":1,"burst":0,"default_conn_delay":1}`),
		bad("limit-conn", "key_type", `{"conn":1,"burst":0,"default_conn_delay":1,"key":"a","key_type":"x"}`),
		bad("limit-conn", "rejected_code", `{"conn":1,"burst":0,"default_conn_delay":1,"key":"a","rejected_code":100}`),

		ok("forward-auth", `{"uri":"http://127.0.0.1:15099/jwt/x","extra_headers":{"x-uri":"$real_request_uri"}}`),
		bad("forward-auth", "uri", `{}`),
		bad("forward-auth", "timeout", `{"uri":"http://a","timeout":0}`),
		bad("forward-auth", "status_on_error", `{"uri":"http://a","status_on_error":100}`),
		bad("forward-auth", "request_method", `{"uri":"http://a","request_method":"PUT"}`),
		since(Version{3, 13}, "forward-auth", "extra_headers", `{"uri":"http://a","extra_headers":{"a":"b"}}`),
		since(Version{3, 16}, "forward-auth", "upstream_headers", `{"uri":"http://a","upstream_headers":["a"]}`),
		ok("mocking", `{"_meta":{"priority":900},"response_example":"a","response_headers":{"a":"b"},"response_status":301,"content_type":"text/plain"}`),
		bad("mocking", "_meta.priority", `{"response_example":"a"}`),
		bad("mocking", "_meta.priority", `{"_meta":{"priority":1006},"response_example":"a"}`),
		bad("mocking", "response_example", `{"_meta":{"priority":900}}`),
		bad("mocking", "content_type", `{"_meta":{"priority":900},"response_example":"a","content_type":"image/png"}`),
		bad("mocking", "response_headers", `{"_meta":{"priority":900},"response_example":"a","response_headers":{}}`),
		since(Version{3, 16}, "proxy-buffering", "", `{"disable_proxy_buffering":true}`),
	}
}

func otherCases() []validationCase {
	pem := strings.Repeat("x", 200)
	of := func(kind Kind, fields, field string) validationCase {
		return validationCase{object: Object{kind, "x.1", []byte(`{"id":"x.1",` + fields + `}`)}, field: field}
	}
	return []validationCase{
		of(KindPluginConfig, `"plugins":{"request-id":{}}`, ""),
		of(KindPluginConfig, `"desc":"x"`, "plugins"),
		of(KindPluginConfig, `"plugins":{"redirect":{"uri":"/"}}`, "plugins.redirect.uri"),
		of(KindStreamRoute, `"server_port":16000,"upstream_id":"u.1"`, ""),
		of(KindStreamRoute, `"server_port":0,"upstream_id":"u.1"`, "server_port"),
		of(KindStreamRoute, `"remote_addr":"x"`, "remote_addr"),
		of(KindStreamRoute, `"upstream_id":"a b"`, "upstream_id"),
		of(KindSSL, `"sni":"a","cert":"x","key":"`+pem+`"`, "cert"),
		of(KindSSL, `"sni":"a","cert":"`+pem+`","key":"x"`, "key"),
		{object: Object{"services", "x.1", nil}, field: "kind"},
	}
}

func TestEveryBrokenRuleIsReported(t *testing.T) {
	r := Route{ID: "r.1", URI: "/a*b", Hosts: []string{"a b"}, Vars: Vars{"x"}, Timeout: &Timeout{}}
	err := r.Validate(Version{})
	for _, field := range []string{"hosts[0]", "uri", "vars", "timeout.connect", "timeout.send", "timeout.read", "plugins"} {
		if err == nil || !strings.Contains(err.Error(), "routes/r.1: "+field+": ") {
			t.Errorf("%s is missing in: %v", field, err)
		}
	}
}

func TestKnownPlugins(t *testing.T) {
	if got := KnownPlugins(Version{}); !slices.Contains(got, "proxy-buffering") || !slices.IsSorted(got) {
		t.Errorf("3.18: %v", got)
	}
	if got := KnownPlugins(Version{2, 15}); slices.Contains(got, "workflow") || !slices.Contains(got, "redirect") {
		t.Errorf("2.15: %v", got)
	}
}
