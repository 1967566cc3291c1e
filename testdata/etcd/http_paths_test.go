package etcd

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// httpCall is one request of the table below, POST unless it says otherwise.
type httpCall struct {
	name, method, path, body string
	header                   []string // names and values in turn
	lines                    int      // of the answer to compare; 0 is all, else the stream goes on
	names                    bool     // the values are the server's own: compare names of fields only
	// differs is why the answers are meant to differ. The test fails if they no longer do.
	differs string
}

// Every path of the JSON gateway, and whatever can be wrong with a request, is answered as etcd does.
// The calls build on each other.
func TestHTTPAnswersAreThoseOfEtcd(t *testing.T) {
	t.Parallel()
	etcd, meshbridge := startBoth(t)
	for _, call := range httpCalls() {
		want, got := call.do(t, etcd), call.do(t, meshbridge)
		diff := cmp.Diff(want, got)
		switch {
		case call.differs == "" && diff != "":
			t.Errorf("%s: %s %s %.200s (-etcd +meshbridge):\n%s", call.name, call.method, call.path, call.body, diff)
		case call.differs != "" && diff == "":
			t.Errorf("%s: meant to differ (%s), but both answer\n%+v", call.name, call.differs, got)
		}
	}
}

// With lists of origins and hosts, the headers and refusals are etcd's.
func TestHTTPOriginsAndHosts(t *testing.T) {
	t.Parallel()
	flags := []string{"--cors", "http://a.example:80,http://b.example:8080", "--host-whitelist", "127.0.0.1,good.example"}
	etcd, meshbridge := startEtcd(t, flags...), startMeshbridge(t, flags...)
	for _, call := range []httpCall{
		{name: "no origin", path: "/v3/kv/range", body: `{"key":"YQ=="}`},
		{name: "an allowed origin", path: "/v3/kv/range", body: `{"key":"YQ=="}`, header: []string{"Origin", "http://b.example:8080"}},
		{name: "another origin", path: "/v3/kv/range", body: `{"key":"YQ=="}`, header: []string{"Origin", "http://c.example:80"}},
		{name: "asking first", method: "OPTIONS", path: "/v3/kv/range", header: []string{"Origin", "http://a.example:80"}},
		{name: "asking first in vain", method: "OPTIONS", path: "/v3/kv/range", header: []string{"Origin", "http://c.example:80"}},
		{name: "an allowed host", path: "/v3/kv/range", body: `{"key":"YQ=="}`, header: []string{"Host", "good.example:2379"}},
		{name: "no origin for health", method: "GET", path: "/health"},
	} {
		if diff := cmp.Diff(call.do(t, etcd), call.do(t, meshbridge)); diff != "" {
			t.Errorf("%s (-etcd +meshbridge):\n%s", call.name, diff)
		}
	}
	for _, path := range []string{"/v3/kv/range", "/health", "/version", "/nothing"} {
		call := httpCall{path: path, header: []string{"Host", "evil.example"}}
		want, got := call.do(t, etcd), call.do(t, meshbridge)
		if want.Status != http.StatusMisdirectedRequest || got.Status != want.Status || !strings.Contains(strings.Join(got.Body, ""), "evil.example") {
			t.Errorf("%s for another host: %+v, etcd %+v", path, got, want)
		}
	}
}

// A watch whose requests cannot be read gets an error. etcd logs it, and
// answers what it could read or, if that was nothing, never.
func TestHTTPWatchThatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	meshbridge := startMeshbridge(t)
	for _, body := range []string{
		``, `x`, `{"create_request":`, `{"create_request":{"key":"*"}}`, `{"create_request":{"key":"YQ=="}} x`,
	} {
		call := httpCall{name: "watch", path: "/v3/watch", body: body}
		if got := call.do(t, meshbridge); got.Status != http.StatusBadRequest || !strings.HasPrefix(got.Body[0], `{"error":{"code":3,`) {
			t.Errorf("%q: %+v", body, got)
		}
	}
}

// httpAnswer is what the answers are compared by.
type httpAnswer struct {
	Status int
	Header map[string]string
	Body   []string // its lines
}

// do sends the call.
func (c httpCall) do(t *testing.T, s server) httpAnswer {
	t.Helper()
	method := c.method
	if method == "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.address+c.path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(c.header); i += 2 {
		if c.header[i] == "Host" {
			request.Host = c.header[i+1]
		} else {
			request.Header.Add(c.header[i], c.header[i+1])
		}
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       patience,
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s: %s: %v", s.name, c.name, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer := httpAnswer{Status: response.StatusCode, Header: map[string]string{}}
	for _, name := range []string{
		"Content-Type", "Grpc-Metadata-Content-Type", "Location", "Allow", "Www-Authenticate",
		"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers",
	} {
		answer.Header[name] = response.Header.Get(name)
	}
	reader := bufio.NewReader(response.Body)
	for c.lines == 0 || len(answer.Body) < c.lines {
		line, err := reader.ReadString('\n')
		if line != "" {
			answer.Body = append(answer.Body, comparable(t, line, c.names))
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%s: %s: %v", s.name, c.name, err)
		}
	}
	return answer
}

// comparable is a line without what two servers need not have in common.
func comparable(t *testing.T, line string, namesOnly bool) string {
	t.Helper()
	var value any
	if json.Unmarshal([]byte(line), &value) != nil {
		return line
	}
	if object, ok := value.(map[string]any); ok {
		// Beside the fields of errors in 3.6 there are those before it, for APISIX.
		if text, ok := object["error"].(string); ok && text == object["message"] {
			delete(object, "error")
		}
		if failure, ok := object["error"].(map[string]any); ok {
			for _, name := range []string{"grpc_code", "http_code", "http_status"} {
				delete(failure, name)
			}
		}
	}
	normalize(value, namesOnly)
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	// The spaces in errors of protojson vary on purpose.
	return strings.ReplaceAll(string(text), "\u00a0", " ")
}

// normalize takes identities out of a JSON value, or all values.
func normalize(value any, namesOnly bool) {
	switch value := value.(type) {
	case map[string]any:
		for name, member := range value {
			switch {
			case slices.Contains([]string{"cluster_id", "member_id", "raft_term"}, name):
				delete(value, name)
			case isLeaf(member) && namesOnly:
				value[name] = "…"
			default:
				normalize(member, namesOnly)
			}
		}
	case []any:
		for i, member := range value {
			if isLeaf(member) && namesOnly {
				value[i] = "…"
			}
			normalize(member, namesOnly)
		}
	}
}

func isLeaf(value any) bool {
	switch value.(type) {
	case map[string]any, []any:
		return false
	}
	return true
}

func httpCalls() []httpCall {
	var calls []httpCall
	add := func(c ...httpCall) { calls = append(calls, c...) }
	call := func(path, body string) { add(httpCall{name: "call", path: "/v3/" + path, body: body}) }

	// Keys and values.
	call("kv/put", `{"key":"YQ==","value":"MQ=="}`)
	call("kv/put", `{"key":"YQ==","value":"Mg==","prev_kv":true}`)
	call("kv/put", `{"key":"Yg==","value":"Mg==","lease":"77"}`)
	call("kv/put", `{"key":"YQ==","ignore_value":true,"value":"MQ=="}`)
	call("kv/put", `{"key":"eno=","ignore_value":true}`)
	call("kv/put", `{}`)
	call("kv/range", `{"key":"YQ=="}`)
	call("kv/range", `{"key":"YQ==","range_end":"AA=="}`)
	call("kv/range", `{"key":"AA==","range_end":"AA==","count_only":true}`)
	call("kv/range", `{"key":"YQ==","revision":"100"}`)
	call("kv/range", `{"key":"eno="}`)
	call("kv/txn", `{"compare":[{"key":"YQ==","target":"VALUE","value":"Mg=="}],"success":[{"request_put":{"key":"YQ==","value":"Mw=="}},{"request_range":{"key":"YQ=="}}],"failure":[{"request_delete_range":{"key":"YQ=="}}]}`)
	call("kv/txn", `{"compare":[{"key":"YQ==","target":3,"result":"NOT_EQUAL","value":"Mw=="}],"failure":[{"request_txn":{"success":[{"request_delete_range":{"key":"YQ==","prev_kv":true}}]}}]}`)
	call("kv/txn", `{"success":[{}]}`)
	call("kv/txn", `{}`)
	call("kv/deleterange", `{"key":"YQ=="}`)
	call("kv/deleterange", `{}`)
	call("kv/compaction", `{"revision":"2"}`)
	call("kv/compaction", `{"revision":"2","physical":true}`)
	call("kv/compaction", `{"revision":"1000"}`)
	call("kv/range", `{"key":"YQ==","revision":"1"}`)

	// Leases, some with two paths.
	call("lease/grant", `{"TTL":"1000","ID":"77"}`)
	call("lease/grant", `{"TTL":"1000","ID":"77"}`)
	call("lease/grant", `{"ttl":"1000","ID":"78"}`)
	call("lease/grant", `{"TTL":"9000000001"}`)
	call("kv/put", `{"key":"bA==","lease":"77"}`)
	for _, prefix := range []string{"lease/", "kv/lease/"} {
		call(prefix+"timetolive", `{"ID":"79","keys":true}`)
		add(httpCall{name: "time to live", path: "/v3/" + prefix + "timetolive", body: `{"ID":"77","keys":true}`, names: true})
		call(prefix+"revoke", `{"ID":"79"}`)
	}
	call("lease/keepalive", `{"ID":"77"}`)
	call("lease/keepalive", `{"ID":"77"}{"ID":"79"} {"ID":77}`)
	call("lease/keepalive", ``)
	call("kv/lease/revoke", `{"ID":"78"}`)
	call("lease/leases", `{}`)
	call("kv/lease/leases", `{}`)
	call("lease/revoke", `{"ID":"77"}`)

	// Watches.
	stream := func(name, body string, lines int) {
		add(httpCall{name: "watch: " + name, path: "/v3/watch", body: body, lines: lines})
	}
	stream("history", `{"create_request":{"key":"AA==","range_end":"AA==","start_revision":"7","prev_kv":true}}`, 2) // one revision: ours are in frames of their own
	stream("of the compacted", `{"create_request":{"key":"YQ==","start_revision":"1"}}`, 2)
	stream("negative", `{"create_request":{"key":"YQ==","start_revision":"-1"}}`, 1)
	stream("of nothing", `{"create_request":{"key":"Yg==","range_end":"YQ=="}}`, 1)
	stream("cancelled", `{"create_request":{"key":"YQ==","watch_id":"5"}}{"cancel_request":{"watch_id":5}}`, 2)
	stream("twice one id", `{"create_request":{"key":"YQ==","watch_id":"5"}}{"create_request":{"key":"YQ==","watch_id":"5"}}`, 2)
	stream("two", "{\"createRequest\":{\"key\":\"YQ==\"}}\n{\"createRequest\":{}}", 2)

	// The cluster and its maintenance. Most values are the server's own.
	for _, path := range []string{"maintenance/status", "maintenance/hash"} {
		add(httpCall{name: "own values", path: "/v3/" + path, body: `{}`, names: true})
	}
	add(httpCall{
		name: "members", path: "/v3/cluster/member/list", body: `{}`, names: true,
		differs: peersOfOne.why,
	})
	call("cluster/member/remove", `{"ID":"1"}`)
	call("cluster/member/update", `{"ID":"1","peerURLs":["http://127.0.0.1:1"]}`)
	call("cluster/member/promote", `{"ID":"1"}`)
	call("cluster/member/add", `{"peerURLs":["x"]}`)
	call("maintenance/hashkv", `{}`)
	call("maintenance/hashkv", `{"revision":"1000"}`)
	call("maintenance/alarm", `{}`)
	call("maintenance/alarm", `{"action":"GET","alarm":"NOSPACE"}`)
	call("maintenance/defragment", `{}`)
	call("maintenance/transfer-leadership", `{"targetID":"1"}`)
	call("maintenance/downgrade", `{"action":"VALIDATE","version":"x"}`)
	add(httpCall{name: "snapshot", path: "/v3/maintenance/snapshot", body: `{}`, names: true, lines: 1})

	// Users, of which there are none.
	call("auth/status", `{}`)
	call("auth/authenticate", `{"name":"a","password":"b"}`)
	call("auth/enable", `{}`)
	call("auth/disable", `{}`)
	call("auth/user/list", `{}`)
	call("auth/user/add", `{"name":"u","password":"p"}`)
	call("auth/user/add", `{"name":"","password":"p"}`)
	call("auth/user/get", `{"name":"u"}`)
	call("auth/user/changepw", `{"name":"nobody","password":"p"}`)
	call("auth/role/add", `{"name":"r"}`)
	call("auth/role/list", `{}`)
	call("auth/role/grant", `{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}`)
	call("auth/role/grant", `{"name":"r"}`)
	call("auth/role/get", `{"role":"r"}`)
	call("auth/user/grant", `{"user":"u","role":"r"}`)
	call("auth/user/get", `{"name":"u"}`)
	call("auth/user/revoke", `{"name":"u","role":"r"}`)
	call("auth/role/revoke", `{"role":"r","key":"YQ==","range_end":"Yg=="}`)
	call("auth/role/delete", `{"role":"r"}`)
	call("auth/user/delete", `{"name":"u"}`)
	call("auth/user/delete", `{"name":"u"}`)

	// Locks and elections.
	call("lease/grant", `{"TTL":"1000","ID":"97"}`)
	call("lock/lock", `{"name":"bA==","lease":"97"}`)
	call("lock/lock", `{"name":"bA==","lease":"97"}`)
	call("lock/lock", `{"name":"bA==","lease":"98"}`)
	call("lock/unlock", `{"key":"bC82MQ=="}`)
	call("lock/unlock", `{"key":"bC82MQ=="}`)
	call("lock/unlock", `{}`)
	call("election/leader", `{"name":"ZQ=="}`)
	call("election/campaign", `{"name":"ZQ==","lease":"97","value":"MQ=="}`)
	call("election/campaign", `{"name":"ZQ==","lease":"97","value":"Mg=="}`)
	call("election/leader", `{"name":"ZQ=="}`)
	add(httpCall{name: "observe", path: "/v3/election/observe", body: `{"name":"ZQ=="}`, lines: 1})
	call("election/proclaim", `{}`)
	call("election/proclaim", `{"leader":{"name":"ZQ==","key":"ZS82MQ==","rev":"1","lease":"97"},"value":"Mw=="}`)
	call("election/proclaim", `{"leader":{"key":"","rev":"1","lease":"97"}}`)
	call("election/resign", `{}`)
	call("election/resign", `{"leader":{}}`)
	call("election/resign", `{"leader":{"name":"ZQ==","key":"ZS82MQ==","rev":"1"}}`)
	call("lease/revoke", `{"ID":"97"}`)

	// Spellings of a request, valid and not.
	for _, body := range []string{
		``, ` `, `null`, `{}`, `[]`, `1`, `"x"`, `x`, `{`, `{"key":"YQ=="`, `{"key":"YQ=="}{`, `{"key":"YQ=="} x`, `{"key":"YQ=="}{"key":"Yg=="}`,
		`{"key":"YQ==","range_end":"AA==","sort_order":"DESCEND","sort_target":"MOD"}`,
		`{"key":"YQ==","rangeEnd":"AA==","sortOrder":2,"sortTarget":"2"}`,
		`{"key":"YQ==","range_end":"AA==","sort_order":"SIDEWAYS"}`, `{"key":"YQ==","sort_order":9}`, `{"key":"YQ==","sort_order":-1}`,
		`{"key":"YQ==","sort_order":1.5}`, `{"key":"YQ==","sort_order":"1"}`, `{"key":"YQ==","sort_order":4294967296}`, `{"key":"YQ==","sort_order":null}`,
		`{"key":"YQ==","limit":1}`, `{"key":"YQ==","limit":"1"}`, `{"key":"YQ==","limit":1.0}`, `{"key":"YQ==","limit":1e0}`, `{"key":"YQ==","limit":"1e0"}`,
		`{"key":"YQ==","limit":"1.0"}`, `{"key":"YQ==","limit":1.5}`, `{"key":"YQ==","limit":" 1"}`, `{"key":"YQ==","limit":""}`, `{"key":"YQ==","limit":"x"}`,
		`{"key":"YQ==","limit":9223372036854775807}`, `{"key":"YQ==","limit":9223372036854775808}`, `{"key":"YQ==","limit":1e300}`, `{"key":"YQ==","limit":-0}`,
		`{"key":"YQ==","limit":NaN}`, `{"key":"YQ==","limit":Infinity}`, `{"key":"YQ==","limit":"NaN"}`, `{"key":"YQ==","limit":true}`, `{"key":"YQ==","limit":01}`,
		`{"key":"YQ==","limit":[1]}`, `{"key":"YQ==","limit":{}}`, `{"key":"YQ==","limit":null}`, `{"key":null}`,
		`{"key":"YQ==","keys_only":"true"}`, `{"key":"YQ==","keys_only":1}`, `{"key":"YQ==","keysOnly":true}`, `{"key":"YQ==","KeysOnly":true}`, `{"KEY":"YQ=="}`,
		`{"key":"YQ"}`, `{"key":"YQ="}`, `{"key":"+/8="}`, `{"key":"-_8="}`, `{"key":"-_8"}`, `{"key":"+/8"}`, `{"key":"*"}`, `{"key":"Y Q=="}`, `{"key":"Y\nQ=="}`, `{"key":"YR=="}`,
		`{"key":1}`, `{"key":["YQ=="]}`, `{"key":"\u0059Q=="}`, `{"key":"YQ==","key":"Yg=="}`, `{"range_end":"","rangeEnd":"","key":"YQ=="}`,
		`{"key":"YQ==","nothing":1}`, `{"key":"YQ==","nothing":{"a":[1,{"b":null}]}}`, `{"key":"YQ==","nothing":}`, `{"key":"YQ==",}`, `{'key':"YQ=="}`, `{key:"YQ=="}`,
		"\ufeff{\"key\":\"YQ==\"}", "{\"key\":\"YQ==\",\"nothing\":\"\xff\"}", "{\"key\":\"YQ==\",\"\xff\":1}", "{\"key\":\"YQ==\",\"sort_order\":\"\xff\"}", "\xff",
		`{"key":"YQ==","nothing":"\ud800"}`, "{\"key\":\"YQ==\",\"nothing\":\"\x00\"}", "\t\r\n {\"key\"\t:\n\"YQ==\"}", `{"key":"YQ==","@type":"x"}`,
		strings.Repeat("[", 20000), `{"key":"YQ==","nothing":` + strings.Repeat("[", 400) + strings.Repeat("]", 400) + `}`,
	} {
		add(httpCall{name: "spelling", path: "/v3/kv/range", body: body})
	}
	add(httpCall{
		name: "deep", path: "/v3/kv/range", body: `{"key":"YQ==","nothing":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`,
		differs: depthOfJSON.why,
	})
	for _, body := range []string{
		`{"success":[{"requestPut":{"key":"YQ=="}}]}`, `{"success":[{"request_put":{"key":"YQ=="},"request_range":{"key":"YQ=="}}]}`,
		`{"success":[null]}`, `{"success":null}`, `{"success":{}}`, `{"success":[[]]}`, `{"success":[{"request_put":null}]}`, `{"success":[{"request_other":{}}]}`,
		`{"compare":[{"key":"YQ==","target":"NOTHING"}]}`, `{"compare":[{"key":"YQ==","version":1,"mod_revision":2}]}`, `{"compare":[{"key":"YQ==","result":7}]}`, `{"compare":[{}]}`,
	} {
		add(httpCall{name: "spelling of a transaction", path: "/v3/kv/txn", body: body})
	}

	// Methods and paths.
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
		for _, path := range []string{"/v3/kv/range", "/v3/watch", "/v3/kv/nothing", "/v3/", "/"} {
			add(httpCall{name: "method", method: method, path: path})
		}
	}
	for _, path := range []string{
		"/v3", "/v3/", "/v3/kv", "/v3/kv/", "/v3/kv/range/", "/v3/kv/range/x", "//v3/kv/range", "/v3//kv/range", "/v3/./kv/range", "/v3/x/../kv/range", "/v3/kv%2Frange", "/v3/KV/range",
		"/v3/kv/range?key=YQ==", "/v3/kv/nothing", "/v3beta/kv/range", "/v3beta/", "/v3beta", "/v3beta/watch/x", "/v3alpha/kv/range", "/v2/keys", "/", "/nothing", "/v3/kv/range:x",
	} {
		add(httpCall{name: "path", path: path, body: `{"key":"YQ=="}`})
	}

	// Headers.
	for _, header := range [][]string{
		{"Content-Type", "application/json"}, {"Content-Type", "text/plain"}, {"Content-Type", "application/x-www-form-urlencoded"}, {"Content-Type", "application/grpc"},
		{"Accept", "text/html"}, {"Te", "trailers"}, {"Origin", "http://evil.example"}, {"Grpc-Timeout", "x"}, {"Grpc-Timeout", "10S"}, {"Grpc-Timeout", "1"},
		{"Grpc-Metadata-Hasleader", "true"}, {"X-Http-Method-Override", "GET"}, {"Authorization", "x"},
	} {
		add(httpCall{name: strings.Join(header, ": "), path: "/v3/kv/range", body: `{"key":"YQ=="}`, header: header})
		add(httpCall{name: strings.Join(header, ": "), path: "/v3/kv/put", body: `{"key":"YQ=="}`, header: header})
	}
	call("kv/put", `{"key":"YQ=="}`)
	add(
		httpCall{name: "binary header", path: "/v3/kv/put", body: `{"key":"YQ=="}`, header: []string{"Grpc-Metadata-X-Bin", "*"}},
		httpCall{
			name: "binary header", path: "/v3/kv/range", body: `{"key":"YQ=="}`, header: []string{"Grpc-Metadata-X-Bin", "*"},
			differs: metadataOfRange.why,
		},
	)
	return calls
}
