package translate

import (
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// codeRequestIDKept is about what gateways make of the ids of others.
const codeRequestIDKept Code = "request_id_kept"

// requestID gives a request an id, a UUID as in Envoy, unless it has one.
type requestID struct {
	HeaderName        string `json:"header_name"`
	IncludeInResponse bool   `json:"include_in_response"`
}

// requestIDOf returns nil where no ids are generated.
func requestIDOf(hcm *http_connection_managerpb.HttpConnectionManager, report reporter) *requestID {
	if generate := hcm.GetGenerateRequestId(); generate != nil && !generate.GetValue() {
		return nil
	}
	const prefix = "http_connection_manager."
	if e := hcm.GetRequestIdExtension().GetTypedConfig(); e != nil && messageName(e) != "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" {
		report(codeSettingIgnored, prefix+"request_id_extension", "the request id extension "+messageName(e))
	}
	if hcm.GetUseRemoteAddress().GetValue() && !hcm.GetPreserveExternalRequestId() {
		report(codeRequestIDKept, prefix+"preserve_external_request_id")
	}
	return &requestID{HeaderName: "x-request-id", IncludeInResponse: hcm.GetAlwaysSetRequestIdInResponse()}
}
