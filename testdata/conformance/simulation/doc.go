// Package simulation stands in for Istio's package of the same name in Istio's own tables of cases. It
// runs each case as Istio does, and records the configuration that Istio generated, the calls, and what
// Istio's simulation says about them, so that the main module can compare its model of Envoy, and the
// translation, with them. It records because neither module's dependencies may reach the other.
package simulation
