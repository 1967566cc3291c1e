// Package telemetry counts requests and connections as Istio's proxies do: istio_requests_total and what else
// Kiali and Istio's dashboards read.
//
// APISIX knows of a request which route and upstream it had, and how it went; the bridge knows what these stand
// for. So a program that APISIX runs when a request is over (program.lua) counts by what APISIX knows, and once
// a second each of its processes tells the bridge what it counted. What is told names routes, upstreams and
// addresses; [Requests] finds the workloads and services behind them, and keeps the series.
//
// Of requests that access logs want, the program keeps an entry each, of nginx's variables, and tells the bridge
// of these in the same reports. [Requests] makes them what Envoy would log, and hands them to [Entries].
//
// A process keeps what it has counted until the bridge has confirmed it, and numbers its reports, so that each
// request is counted once, whichever of the two is late or away for a while.
package telemetry
