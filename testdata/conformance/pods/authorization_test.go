package pods

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

const authorization = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: http, namespace: default}
spec:
  selector: {matchLabels: {app: server}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]
    to: [{operation: {ports: ["8080", "8081"], paths: ["/client/*"], methods: [GET]}}]
  - from: [{source: {namespaces: [other]}}]
    to: [{operation: {ports: ["8080"], paths: ["/other/*"]}}]
  - to: [{operation: {ports: ["8080"], paths: ["/open*"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tcp, namespace: default}
spec:
  selector: {matchLabels: {app: server}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]
    to: [{operation: {ports: ["9000", "9002"]}}]
  - to: [{operation: {ports: ["9001"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: default}
spec:
  selector: {matchLabels: {app: server}}
  action: DENY
  rules:
  - to: [{operation: {ports: ["8080"], paths: ["/open/secret", "/client/secret"]}}]
  - from: [{source: {namespaces: [other]}}]
    to: [{operation: {ports: ["9001"]}}]
---`

func TestAuthorizationPoliciesDecideByThePeer(t *testing.T) {
	n := newNetwork(t)
	foreign := n.pod(t, "foreign")
	foreign.namespace = "other"
	w := newWorldIn(t, n, workload(foreign, meshTLS)+authorization)
	other := w.inject(t, foreign)

	for _, c := range []struct {
		from   *pod
		url    string
		status int
	}{
		{w.client.pod, "/client/a", 200},
		{w.client.pod, "/client/secret", 403},
		{w.client.pod, "/other/a", 403},
		{w.client.pod, "/open", 200},
		{w.client.pod, "/open/secret", 403},
		{other.pod, "/other/a", 200},
		{other.pod, "/client/a", 403},
		{other.pod, "/open", 200},
		{w.legacy, "/client/a", 403},
		{w.legacy, "/other/a", 403},
		{w.legacy, "/open", 200},
		{w.legacy, "/open/secret", 403},
	} {
		t.Run(fmt.Sprintf("HTTP, %s%s", c.from.name, c.url), func(t *testing.T) {
			address := "10.96.0.10:80"
			if c.from == w.legacy {
				address = w.server.address + ":8080"
			}
			a := c.from.get(t, "http://server.default"+c.url, "--address", address)
			if a.Status != c.status {
				t.Errorf("%+v, want %d", a, c.status)
			}
		})
	}
	t.Run("HTTP, another method", func(t *testing.T) {
		if a := w.client.get(t, "http://server/client/a", "--address", "10.96.0.10:80", "--method", "POST"); a.Status != http.StatusForbidden {
			t.Errorf("%+v", a)
		}
	})
	t.Run("HTTP, a port without a rule", func(t *testing.T) {
		if a := w.client.get(t, "http://server/client/a", "--address", "10.96.0.10:82"); a.Status != http.StatusForbidden {
			t.Errorf("%+v", a)
		}
	})
	for _, c := range []struct {
		from    *pod
		port    string
		allowed bool
	}{
		{w.client.pod, "9000", true},
		{w.client.pod, "9001", true},
		{w.client.pod, "9002", true},
		{other.pod, "9000", false},
		{other.pod, "9001", false},
		{other.pod, "9002", false},
		{w.legacy, "9000", false},
		{w.legacy, "9001", true},
		{w.legacy, "9002", false},
	} {
		t.Run(fmt.Sprintf("TCP, %s, port %s", c.from.name, c.port), func(t *testing.T) {
			address := "10.96.0.10:" + c.port
			if c.from == w.legacy {
				address = w.server.address + ":" + c.port
			}
			if a := c.from.send(t, address, "hello"); (a.Body != "") != c.allowed {
				t.Errorf("%+v, want it allowed: %t", a, c.allowed)
			}
		})
	}
	t.Run("a policy that is removed decides no more", func(t *testing.T) {
		w.configure(t, "more.yaml", workload(foreign, meshTLS))
		harness.Eventually(t, "an answer", func(ctx context.Context) error {
			a, err := other.call(ctx, appUser, "tcp", "--address", "10.96.0.10:9000", "--send", "hello")
			if err == nil && a.Body != "server hello" {
				err = fmt.Errorf("%+v", a)
			}
			return err
		})
	})
}
