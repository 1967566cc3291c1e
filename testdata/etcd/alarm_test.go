package etcd

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// An operator meets the same alarms, members and downgrades on both servers.
// The calls build on each other.
func TestMaintenanceIsThatOfEtcd(t *testing.T) {
	t.Parallel()
	etcd, meshbridge := startBoth(t)
	const errorsOf = `"errors":`
	for _, call := range [][2]string{
		{"maintenance/alarm", `{}`},
		{"maintenance/alarm", `{"action":"ACTIVATE"}`},
		{"maintenance/alarm", `{"action":"ACTIVATE","alarm":"NONE","memberID":"1"}`},
		{"maintenance/alarm", `{"action":"ACTIVATE","alarm":9,"memberID":"1"}`},
		{"maintenance/alarm", `{"action":"GET","alarm":"NOSPACE"}`},
		{"maintenance/alarm", `{}`},
		{"maintenance/status", errorsOf},
		{"maintenance/alarm", `{"action":"DEACTIVATE","alarm":9,"memberID":"1"}`},
		// No space: what makes the store grow is refused.
		{"kv/put", `{"key":"YQ==","value":"MQ=="}`},
		{"lease/grant", `{"ID":"77","TTL":"100"}`},
		{"maintenance/alarm", `{"action":"ACTIVATE","alarm":"NOSPACE","memberID":"5"}`},
		{"maintenance/alarm", `{"action":"ACTIVATE","alarm":"NOSPACE","memberID":"5"}`},
		{"maintenance/status", errorsOf},
		{"kv/put", `{"key":"YQ=="}`},
		{"kv/put", `{}`},
		{"kv/txn", `{"success":[{"requestPut":{"key":"YQ=="}}]}`},
		{"kv/txn", `{"failure":[{"requestTxn":{"success":[{"requestPut":{"key":"YQ=="}}]}}]}`},
		{"kv/txn", `{"success":[{"requestRange":{"key":"YQ=="}},{"requestDeleteRange":{"key":"enp6"}}]}`},
		{"lease/grant", `{"TTL":"100"}`},
		{"lease/revoke", `{"ID":"78"}`},
		{"lease/timetolive", `{"ID":"78"}`},
		{"kv/deleterange", `{"key":"YQ=="}`},
		{"kv/compaction", `{"revision":"2"}`},
		{"maintenance/alarm", `{"action":"DEACTIVATE","alarm":"NOSPACE","memberID":"6"}`},
		{"maintenance/alarm", `{"action":"DEACTIVATE","alarm":"NOSPACE","memberID":"5"}`},
		{"kv/put", `{"key":"YQ=="}`},
		// Corrupt: what changes anything is refused.
		{"maintenance/alarm", `{"action":"ACTIVATE","alarm":"CORRUPT"}`},
		{"maintenance/status", errorsOf},
		{"kv/put", `{"key":"YQ=="}`},
		{"kv/range", `{"key":"YQ=="}`},
		{"kv/txn", `{"success":[{"requestRange":{"key":"YQ=="}}]}`},
		{"kv/txn", `{"success":[{"requestDeleteRange":{"key":"YQ=="}}]}`},
		{"kv/txn", `{}`},
		{"kv/deleterange", `{"key":"YQ=="}`},
		{"kv/compaction", `{"revision":"3"}`},
		{"lease/grant", `{"TTL":"100"}`},
		{"lease/revoke", `{"ID":"77"}`},
		{"lease/leases", `{}`},
		{"auth/role/add", `{"name":"r"}`},
		{"maintenance/alarm", `{"action":"DEACTIVATE","alarm":"CORRUPT"}`},
		{"kv/put", `{"key":"YQ=="}`},
		{"maintenance/hashkv", `{}`},
		// Members, of which there is one.
		{"cluster/member/add", `{}`},
		{"cluster/member/add", `{"peerURLs":["http://127.0.0.1"]}`},
		{"cluster/member/add", `{"peerURLs":["http://127.0.0.1:1/path"]}`},
		{"cluster/member/remove", `{}`},
		{"cluster/member/remove", `{"ID":"MEMBER"}`},
		{"cluster/member/promote", `{"ID":"MEMBER"}`},
		{"cluster/member/update", `{"ID":"MEMBER","peerURLs":["http://127.0.0.1:1"]}`},
		{"cluster/member/list", `{"linearizable":true}`},
		{"maintenance/transfer-leadership", `{}`},
		{"maintenance/transfer-leadership", `{"targetID":"MEMBER"}`},
		// Downgrades, as far as they have no effect that takes its time.
		{"maintenance/downgrade", `{}`},
		{"maintenance/downgrade", `{"version":"3.5"}`},
		{"maintenance/downgrade", `{"version":"3.5.17"}`},
		{"maintenance/downgrade", `{"version":"3.5.x"}`},
		{"maintenance/downgrade", `{"version":"4"}`},
		{"maintenance/downgrade", `{"version":"3.4.0"}`},
		{"maintenance/downgrade", `{"version":"3.6.0"}`},
		{"maintenance/downgrade", `{"version":"3.7.0"}`},
		{"maintenance/downgrade", `{"action":"ENABLE","version":"3.4.0"}`},
		{"maintenance/downgrade", `{"action":"CANCEL"}`},
		{"maintenance/downgrade", `{"action":7}`},
	} {
		answer := func(s server) string {
			member := memberOf(t, s)
			path, body := "/v3/"+call[0], strings.ReplaceAll(call[1], "MEMBER", member)
			if call[1] == errorsOf {
				body = `{}`
			}
			got := httpCall{name: call[0], path: path, body: body}.do(t, s)
			text := strings.ReplaceAll(strings.Join(got.Body, ""), member, "MEMBER")
			if call[1] == errorsOf {
				// The sizes are the server's own.
				var status struct {
					Errors        []string        `json:"errors"`
					Quota         json.RawMessage `json:"dbSizeQuota"`
					DowngradeInfo json.RawMessage `json:"downgradeInfo"`
				}
				if err := json.Unmarshal([]byte(text), &status); err != nil {
					t.Fatal(err)
				}
				text = strings.Join(status.Errors, "|") + string(status.Quota) + string(status.DowngradeInfo)
			}
			return strings.NewReplacer(`"name":"default",`, "", `"name":"meshbridge",`, "", s.address, "ADDRESS").Replace(text)
		}
		if diff := cmp.Diff(answer(etcd), answer(meshbridge)); diff != "" {
			t.Errorf("%s %s (-etcd +meshbridge):\n%s", call[0], call[1], diff)
		}
	}
}

// memberOf returns the id of a server's only member.
func memberOf(t *testing.T, s server) string {
	t.Helper()
	var list struct {
		Members []struct{ ID string }
	}
	answer := httpCall{name: "members", path: "/v3/cluster/member/list", body: `{}`}.do(t, s)
	if err := json.Unmarshal([]byte(strings.Join(answer.Body, "")), &list); err != nil || len(list.Members) != 1 {
		t.Fatalf("%v: %v", answer, err)
	}
	return list.Members[0].ID
}

// A server that is full refuses puts until room was made and the alarm is
// disarmed, whichever server it is.
func TestQuotaIsThatOfEtcd(t *testing.T) {
	t.Parallel()
	const quota = "1000000"
	tell := func(s server) []string {
		c, ctx := s.client(t), t.Context()
		var story []string
		add := func(what string, err error) {
			if err != nil {
				what += ": " + err.Error()
			}
			story = append(story, what)
		}
		value := strings.Repeat("x", 100_000)
		var err error
		for range 10_000 { // etcd knows its size after its next commit to the disk
			if _, err = c.Put(ctx, "large", value); err != nil {
				break
			}
		}
		add("put until it is full", err)
		_, err = c.Put(ctx, "small", "1")
		add("small put", err)
		_, err = c.Grant(ctx, 60)
		add("lease", err)
		alarms, err := c.AlarmList(ctx)
		add("alarms", err)
		for _, a := range alarms.Alarms {
			add("alarm "+a.GetAlarm().String(), nil)
		}
		_, err = c.Delete(ctx, "large")
		add("delete", err)
		r, err := c.Get(ctx, "large")
		add("read", err)
		_, err = c.Compact(ctx, r.Header.GetRevision(), clientv3.WithCompactPhysical())
		add("compact", err)
		_, err = c.Defragment(ctx, s.address)
		add("defragment", err)
		_, err = c.AlarmDisarm(ctx, &clientv3.AlarmMember{})
		add("disarm", err)
		_, err = c.Put(ctx, "small", "1")
		add("put", err)
		status, err := c.Status(ctx, s.address)
		add("status", err)
		if status.DbSizeQuota != 1_000_000 || status.DbSize >= 1_000_000 || len(status.Errors) > 0 {
			t.Errorf("%s: %+v", s.name, status)
		}
		return story
	}
	flag := []string{"--quota-backend-bytes", quota}
	if diff := cmp.Diff(tell(startEtcd(t, flag...)), tell(startMeshbridge(t, flag...))); diff != "" {
		t.Errorf("(-etcd +meshbridge):\n%s", diff)
	}
}
