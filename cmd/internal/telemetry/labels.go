package telemetry

import "cmp"

// label is the index of a label in a set.
type label int

// The labels of Istio's metrics, in the order of Envoy.
const (
	labelReporter label = iota
	labelSourceWorkload
	labelSourceCanonicalService
	labelSourceCanonicalRevision
	labelSourceWorkloadNamespace
	labelSourcePrincipal
	labelSourceApp
	labelSourceVersion
	labelSourceCluster
	labelDestinationWorkload
	labelDestinationWorkloadNamespace
	labelDestinationPrincipal
	labelDestinationApp
	labelDestinationVersion
	labelDestinationService
	labelDestinationCanonicalService
	labelDestinationCanonicalRevision
	labelDestinationServiceName
	labelDestinationServiceNamespace
	labelDestinationCluster
	labelRequestProtocol
	labelResponseCode
	labelGRPCStatus
	labelResponseFlags
	labelSecurityPolicy
	labelCount
)

// labelNames are the names of labels.
var labelNames = [labelCount]string{
	labelReporter:                     "reporter",
	labelSourceWorkload:               "source_workload",
	labelSourceCanonicalService:       "source_canonical_service",
	labelSourceCanonicalRevision:      "source_canonical_revision",
	labelSourceWorkloadNamespace:      "source_workload_namespace",
	labelSourcePrincipal:              "source_principal",
	labelSourceApp:                    "source_app",
	labelSourceVersion:                "source_version",
	labelSourceCluster:                "source_cluster",
	labelDestinationWorkload:          "destination_workload",
	labelDestinationWorkloadNamespace: "destination_workload_namespace",
	labelDestinationPrincipal:         "destination_principal",
	labelDestinationApp:               "destination_app",
	labelDestinationVersion:           "destination_version",
	labelDestinationService:           "destination_service",
	labelDestinationCanonicalService:  "destination_canonical_service",
	labelDestinationCanonicalRevision: "destination_canonical_revision",
	labelDestinationServiceName:       "destination_service_name",
	labelDestinationServiceNamespace:  "destination_service_namespace",
	labelDestinationCluster:           "destination_cluster",
	labelRequestProtocol:              "request_protocol",
	labelResponseCode:                 "response_code",
	labelGRPCStatus:                   "grpc_response_status",
	labelResponseFlags:                "response_flags",
	labelSecurityPolicy:               "connection_security_policy",
}

// labels are the values of a series. A connection has no labelResponseCode and labelGRPCStatus.
type labels [labelCount]string

// ends are the two workloads of a request or connection and what is known of the destination, as the reporter
// knows them.
type ends struct {
	own, peer                Workload
	ownPrincipal, peerID     string
	service, serviceName     string // of the destination; empty where unknown
	serviceNamespace         string
	reporter                 string
	mutualTLS, securityKnown bool
}

// onto fills in the labels about workloads, by the rules of Istio's filter: what is unknown of a peer is
// "unknown", and of the proxy's own workload empty.
func (e *ends) onto(l *labels) {
	or := func(value string) string { return cmp.Or(value, unknown) }
	peerNamespace := cmp.Or(namespaceOf(e.peerID), e.peer.Namespace)
	l[labelReporter] = e.reporter
	l[labelSecurityPolicy] = unknown
	if e.securityKnown {
		l[labelSecurityPolicy] = "none"
		if e.mutualTLS {
			l[labelSecurityPolicy] = "mutual_tls"
		}
	}
	if e.reporter == "source" {
		l[labelSourceWorkload], l[labelSourceWorkloadNamespace] = e.own.Name, e.own.Namespace
		l[labelSourceCanonicalService], l[labelSourceCanonicalRevision] = e.own.CanonicalService, e.own.Revision
		l[labelSourceApp], l[labelSourceVersion], l[labelSourceCluster] = e.own.App, e.own.Version, e.own.Cluster
		l[labelSourcePrincipal] = or(e.ownPrincipal)
		l[labelDestinationWorkload], l[labelDestinationWorkloadNamespace] = or(e.peer.Name), or(peerNamespace)
		l[labelDestinationCanonicalService] = or(e.peer.CanonicalService)
		l[labelDestinationCanonicalRevision] = cmp.Or(e.peer.Revision, "latest")
		l[labelDestinationApp], l[labelDestinationVersion], l[labelDestinationCluster] = or(e.peer.App), or(e.peer.Version), or(e.peer.Cluster)
		l[labelDestinationPrincipal] = or(e.peerID)
		l[labelDestinationService], l[labelDestinationServiceName] = or(e.service), or(e.serviceName)
		l[labelDestinationServiceNamespace] = or(cmp.Or(e.serviceNamespace, peerNamespace))
		return
	}
	l[labelSourceWorkload], l[labelSourceWorkloadNamespace] = or(e.peer.Name), or(peerNamespace)
	l[labelSourceCanonicalService] = or(e.peer.CanonicalService)
	l[labelSourceCanonicalRevision] = cmp.Or(e.peer.Revision, "latest")
	l[labelSourceApp], l[labelSourceVersion], l[labelSourceCluster] = or(e.peer.App), or(e.peer.Version), or(e.peer.Cluster)
	l[labelSourcePrincipal] = or(e.peerID)
	l[labelDestinationWorkload], l[labelDestinationWorkloadNamespace] = e.own.Name, e.own.Namespace
	l[labelDestinationCanonicalService], l[labelDestinationCanonicalRevision] = e.own.CanonicalService, e.own.Revision
	l[labelDestinationApp], l[labelDestinationVersion], l[labelDestinationCluster] = e.own.App, e.own.Version, e.own.Cluster
	l[labelDestinationPrincipal] = or(e.ownPrincipal)
	l[labelDestinationService] = cmp.Or(e.service, e.own.CanonicalService)
	l[labelDestinationServiceName] = cmp.Or(e.serviceName, e.own.CanonicalService)
	l[labelDestinationServiceNamespace] = e.own.Namespace
}

// anonymous takes out what clients, and servers that answer, say of themselves.
func (l *labels) anonymous() {
	if l[labelReporter] == "source" {
		for _, i := range []label{
			labelDestinationService, labelDestinationServiceName, labelDestinationServiceNamespace, labelDestinationWorkload,
			labelDestinationWorkloadNamespace, labelDestinationCanonicalService, labelDestinationApp, labelDestinationVersion,
			labelDestinationCluster,
		} {
			l[i] = unknown
		}
		l[labelDestinationCanonicalRevision] = "latest"
		return
	}
	for _, i := range []label{
		labelSourceWorkload, labelSourceWorkloadNamespace, labelSourceCanonicalService, labelSourceApp,
		labelSourceVersion, labelSourceCluster, labelSourcePrincipal,
	} {
		l[i] = unknown
	}
	l[labelSourceCanonicalRevision] = "latest"
}
