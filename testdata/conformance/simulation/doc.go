// Package simulation stands in for Istio's package of the same name in Istio's own tables of cases. It
// runs each case as Istio does, and records the configuration that Istio generated, the calls, and what
// Istio's simulation says about them, and about many more calls that it makes up, so that the main module
// can compare its model of Envoy, the translation, and what capture chooses, with them. It records because
// neither module's dependencies may reach the other.
package simulation
