// Package gatewayapi gives the fixtures of Istio's own test of its Gateway API conversion to a real
// discovery server, and records what each gateway and client among them is sent, so that the main
// module can compare the translation with its model of Envoy.
//
// The fixtures are part of Istio's module and are not copied here. Which services, secrets and
// certificates exist next to them is in variables of a test file of Istio's, which package tables
// compiles together with this one.
package gatewayapi
