// Package deploy holds tests of what is in the folder deploy, in a module of its own, because they run Istio's
// injector and Helm's engine. See the Makefile's target deploy.
package deploy
