// Package harness runs istiod and meshbridge as processes and looks at them
// as their users do: at istiod's debug endpoints, at the bridge's log and
// health, and at its store through etcd's client and through the HTTP API that
// APISIX speaks.
package harness
