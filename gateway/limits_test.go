package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"meshbridge/gateway"
)

// Bad requests get an error that names what is wrong, with both sets of fields, and change nothing.
func TestMalformedRequests(t *testing.T) {
	s := start(t, gateway.Config{})
	deep := strings.Repeat(`{"success":[{"request_txn":`, 2000) + "{}" + strings.Repeat("}]}", 2000)
	for name, test := range map[string]struct {
		path, body string
		status     int
		message    string
	}{
		"not JSON":              {"/v3/kv/range", `key=a`, 400, "invalid character"},
		"half of it":            {"/v3/kv/range", `{"key":"L2E="`, 400, "unexpected EOF"},
		"an array":              {"/v3/kv/range", `[]`, 400, "unexpected token"},
		"a key not in base64":   {"/v3/kv/range", `{"key":"*"}`, 400, "field key"},
		"a key that is number":  {"/v3/kv/range", `{"key":1}`, 400, "field key"},
		"an end not in base64":  {"/v3/kv/range", `{"key":"L2E=","range_end":"!"}`, 400, "field rangeEnd"},
		"a revision with parts": {"/v3/kv/range", `{"key":"L2E=","revision":1.5}`, 400, "revision"},
		"a revision too large":  {"/v3/kv/range", `{"key":"L2E=","revision":1e19}`, 400, "revision"},
		"bad UTF-8":             {"/v3/kv/range", "{\"key\":\"L2E=\",\"sort_order\":\"\xff\"}", 400, "UTF-8"},
		"a field twice":         {"/v3/kv/range", `{"range_end":"","rangeEnd":"L2E="}`, 400, "duplicate"},
		"put not in base64":     {"/v3/kv/put", `{"key":"*"}`, 400, "field key"},
		"deep":                  {"/v3/kv/txn", deep, 400, "recursion"},
		"deep array":            {"/v3/kv/range", strings.Repeat("[", 100_000), 400, "depth"},
		"larger than any":       {"/v3/kv/put", `{"key":"` + strings.Repeat("A", 3<<20) + `"}`, 429, "larger than max"},
		"larger than a request": {"/v3/kv/put", `{"key":"` + strings.Repeat("A", 2200<<10) + `"}`, 400, "request is too large"},
		"unknown path":          {"/v3/kv/rang", `{}`, 404, "Not Found"},
	} {
		status, body := post(t, s, test.path, test.body)
		var got struct {
			Error   string `json:"error"`
			Code    int    `json:"code"`
			Message string `json:"message"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Errorf("%s: %v in %s", name, err, body)
			continue
		}
		if status != test.status || got.Code == 0 || got.Error != got.Message || !strings.Contains(got.Message, test.message) {
			t.Errorf("%s: %d %s, want %d with %q", name, status, body, test.status, test.message)
		}
	}
	for name, test := range map[string]struct{ body, message string }{
		"nothing":         {``, "create_request"},
		"not JSON":        {`x`, "invalid character"},
		"a bad second":    {`{"create_request":{"key":"L2E="}} {"create_request":{"key":"*"}}`, "field key"},
		"garbage behind":  {`{"create_request":{"key":"L2E="}} }`, "invalid character"},
		"a wrong type":    {`{"create_request":[]}`, "unexpected token"},
		"a bad revision":  {`{"create_request":{"key":"L2E=","start_revision":"x"}}`, "field startRevision"},
		"two of a union":  {`{"create_request":{},"cancel_request":{}}`, "oneof"},
		"a huge revision": {`{"create_request":{"start_revision":1e300}}`, "field startRevision"},
	} {
		status, body := post(t, s, "/v3/watch", test.body)
		var got struct {
			Error struct {
				GRPCCode int    `json:"grpc_code"`
				HTTPCode int    `json:"http_code"`
				Message  string `json:"message"`
				Status   string `json:"http_status"`
				Code     int    `json:"code"`
			} `json:"error"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Errorf("watch of %s: %v in %s", name, err, body)
			continue
		}
		e := got.Error
		if status != 400 || e.GRPCCode != 3 || e.Code != 3 || e.HTTPCode != 400 || e.Status != "Bad Request" || !strings.Contains(e.Message, test.message) {
			t.Errorf("watch of %s: %d %s", name, status, body)
		}
	}
	if revision := s.store.Revision(); revision != 1 {
		t.Errorf("revision %d", revision)
	}
}

func TestLenientRequests(t *testing.T) {
	s := start(t, gateway.Config{})
	key := "\xfb\xff/a" // base64 has both characters that the alphabets differ in
	put(t, s.store, key, "1")
	put(t, s.store, key, "2")
	for name, body := range map[string]string{
		"snake case":        `{"key":"+/8vYQ==","range_end":"+/8vYg==","keys_only":true,"sort_order":"DESCEND","sort_target":"KEY"}`,
		"camel case":        `{"key":"+/8vYQ==","rangeEnd":"+/8vYg==","keysOnly":true,"sortOrder":2,"sortTarget":0}`,
		"url alphabet":      `{"key":"-_8vYQ==","range_end":"-_8vYg==","keys_only":true}`,
		"no padding":        `{"key":"-_8vYQ","range_end":"+/8vYg","keys_only":true}`,
		"strings":           `{"key":"+/8vYQ==","limit":"5","revision":"3","keys_only":true}`,
		"floats":            `{"key":"+/8vYQ==","limit":5.0,"revision":3e0,"keys_only":true}`,
		"unknown fields":    `{"key":"+/8vYQ==","keys_only":true,"KEY":"eA==","new":{"a":[1,{}]}}`,
		"unknown enum name": `{"key":"+/8vYQ==","keys_only":true,"sort_order":"SIDEWAYS"}`,
		"nulls":             `{"key":"+/8vYQ==","keys_only":true,"limit":null}`,
		"space and more":    " \n{\"keys_only\" : true , \"key\" : \"+/8vYQ==\" } trailing",
	} {
		status, response := post(t, s, "/v3/kv/range", body)
		if status != 200 || !strings.Contains(response, `"mod_revision":"3","version":"2"}],"count":"1"`) {
			t.Errorf("%s: %d %s", name, status, response)
		}
	}
}

func TestMethods(t *testing.T) {
	s := start(t, gateway.Config{})
	for _, test := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/v3/kv/range", 501, `{"error":"Method Not Allowed","code":12,"message":"Method Not Allowed"}`},
		{"PUT", "/v3/watch", 501, `{"error":"Method Not Allowed","code":12,"message":"Method Not Allowed"}`},
		{"GET", "/v3/kv/put", 501, `{"error":"Method Not Allowed","code":12,"message":"Method Not Allowed"}`},
		{"POST", "/version", 405, "Method Not Allowed\n"},
		{"GET", "/", 404, "404 page not found\n"},
		{"POST", "/v3alpha/kv/range", 404, "404 page not found\n"},
		{"HEAD", "/health", 405, ""},
	} {
		request, err := http.NewRequestWithContext(within(t), test.method, s.url+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := httpClient(t).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if r.StatusCode != test.status || string(body) != test.body {
			t.Errorf("%s %s: %d %s", test.method, test.path, r.StatusCode, body)
		}
	}
}

// A body may come in any pieces, with a length or in chunks.
func TestBodyInPieces(t *testing.T) {
	s := start(t, gateway.Config{})
	put(t, s.store, "/a", "1")
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	reader := bufio.NewReader(conn)
	body := `{"key":"L2E="}`
	for name, request := range map[string]string{
		"bytes":  fmt.Sprintf("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body),
		"chunks": fmt.Sprintf("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", body[:5], len(body)-5, body[5:]),
	} {
		for _, b := range []byte(request) {
			if _, err := conn.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		r, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if r.StatusCode != http.StatusOK || !bytes.Contains(response, []byte(`"count":"1"`)) {
			t.Errorf("%s: %d %s", name, r.StatusCode, response)
		}
	}
}
