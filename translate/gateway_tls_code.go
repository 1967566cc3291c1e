package translate

// codeUnenforcedClientCertificateCheck is of the codes that Options.AllowUnenforced takes.
const codeUnenforcedClientCertificateCheck Code = "unenforced_client_certificate_check"

// tlsCodes are the codes of TLS that APISIX terminates.
func tlsCodes() []CodeInfo {
	return []CodeInfo{
		{
			"alpn_ignored", SeverityWarning, "the protocols %s are not what is offered, but HTTP/1.1 and, where APISIX listens with it, HTTP/2",
			"APISIX offers the same protocols to every server name of a port (apisix.ssl.listen in its config.yaml).",
		},
		{
			"certificate_choice", SeverityInfo, "of several certificates with the same kind of key, APISIX is given the one for the server name",
			"OpenSSL holds one certificate for each kind of key. For every server name it is the first one that is for the name, or else the first; a client that asks for a name covered by a wildcard gets the wildcard's.",
		},
		{
			"certificate_missing", SeverityError, "secret %s has not arrived, so nothing of the chain is served",
			"As in Envoy, TLS handshakes fail until it does, unless another chain's wildcard covers the server name; requests then get 404. istiod sends secrets only over its authenticated port (grpcs), to a proxy that tells its cluster (CLUSTER_ID in the node metadata) and whose service account may read them.",
		},
		{
			"certificate_unavailable", SeverityError, "nothing of the chain is served: %s",
			"APISIX gets certificates from secrets that istiod sends: credentialName of a Gateway's server, or certificateRefs of a Gateway API listener; and from files of this host (serverCertificate, privateKey, caCertificates), which are read again every few seconds. The workload's own certificate (ISTIO_MUTUAL) and private keys that are kept elsewhere are not available. Handshakes fail, unless another chain's wildcard covers the server name; requests then get 404.",
		},
		{
			"client_certificate_host", SeverityWarning, "requests whose Host is not the TLS server name get 400, where the Host, too, is a server name with client certificates",
			"APISIX insists on it because it chooses what it verifies clients with by server name alone. Envoy routes such requests on the chain of the server name.",
		},
		{
			"client_certificate_refused_late", SeverityInfo, "a client certificate that does not verify gets 404, where Envoy ends the handshake",
			"APISIX cannot do both: let clients without a certificate in, and end the handshake of those with a bad one.",
		},
		{
			"client_certificate_verified", SeverityWarning, "client certificates are verified, although any would be accepted",
			"APISIX cannot ask for a certificate without verifying it.",
		},
		{
			"server_name_conflict", SeverityError, "connections for %s to chain %s would get the certificate of chain %s, and are not served",
			"APISIX chooses the certificate by server name, whatever the port. Servers for the same name on several ports need the same credentials and settings; with others, the first chain by name has the server name, and requests to the other one get 404.",
		},
		{
			"server_name_depth", SeverityInfo, "%s stands for one label in APISIX, and for any number in Envoy",
			"So do certificates for it. Names with more labels that have routes of their own are served; handshakes for others fail.",
		},
		{
			"server_name_invalid", SeverityError, "%q is no server name that APISIX accepts; handshakes for it fail",
			"Names consist of letters, digits, dots, dashes and underscores, with a wildcard in front.",
		},
		{
			"tls_parameters_ignored", SeverityWarning, "%s cannot be set for a single server",
			"APISIX has one setting for all servers: apisix.ssl.ssl_ciphers in its config.yaml, and ssl_ecdh_curve in nginx_config.http_configuration_snippet.",
		},
		{
			"tls_version_unavailable", SeverityWarning, "TLS 1.0 is not offered",
			"APISIX's lowest version is TLS 1.1.",
		},
		{
			codeUnenforcedClientCertificateCheck, SeverityError, "%s of client certificates cannot be checked; %s",
			"APISIX verifies that an authority has issued a client certificate, and nothing else about it. --allow-unenforced unenforced_client_certificate_check lets every such certificate in.",
		},
	}
}
