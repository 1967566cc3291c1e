// Package status serves what Istio's agent serves on port 15020: the application's probes, which the
// injector points there, metrics of the bridge, APISIX and the application in one answer, the readiness of
// the pod, and the requests to drain and to quit.
//
// Paths, status codes and environment variables are those of pilot-agent, because the injector, Kubernetes
// Jobs and scrape configurations rely on them.
package status
