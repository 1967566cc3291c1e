// Package istioctl runs the real istioctl of the pinned Istio version against a running bridge and a real
// istiod: as in a cluster it asks Kubernetes' API server for the pod, has a port of it forwarded, and reads
// what answers there. The API server is a stand-in that serves the manifests that istiod reads.
package istioctl
