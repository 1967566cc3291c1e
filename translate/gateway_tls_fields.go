package translate

import "google.golang.org/protobuf/reflect/protoreflect"

// understoodInTLS is like understoodInChains, for TLS contexts and secrets.
var understoodInTLS = map[protoreflect.FullName][]string{
	"envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext": {
		"common_tls_context", "require_client_certificate",
	},
	"envoy.extensions.transport_sockets.tls.v3.CommonTlsContext": {
		"tls_params", "tls_certificate_sds_secret_configs", "validation_context", "validation_context_sds_secret_config",
		"combined_validation_context", "alpn_protocols",
		"tls_certificates", // where capture terminates TLS, and otherwise there is no certificate
	},
	"envoy.extensions.transport_sockets.tls.v3.TlsParameters": {
		"tls_minimum_protocol_version", "tls_maximum_protocol_version", "cipher_suites", "ecdh_curves", "signature_algorithms",
	},
	"envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext": {
		"trusted_ca", "match_typed_subject_alt_names", "match_subject_alt_names", "verify_certificate_spki", "verify_certificate_hash",
		"crl", "require_signed_certificate_timestamp", "custom_validator_config", "trust_chain_verification", "max_verify_depth",
		"system_root_certs",
	},
	"envoy.extensions.transport_sockets.tls.v3.Secret": {
		"name", "tls_certificate", "validation_context",
	},
	"envoy.extensions.transport_sockets.tls.v3.TlsCertificate": {
		"certificate_chain", "private_key", "pkcs12", "password", "private_key_provider",
	},
}
