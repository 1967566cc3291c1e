package authn

// status is the result of looking at a token, as the text that Envoy answers with; empty where the
// request may pass.
type status string

// Statuses that decide about more than the text of an answer.
const (
	statusOK                 status = ""
	statusMissing            status = "Jwt is missing"
	statusUnknownIssuer      status = "Jwt issuer is not configured"
	statusAudienceNotAllowed status = "Audiences in Jwt are not allowed"
	statusVerificationFails  status = "Jwt verification fails"
)

// The other statuses.
const (
	statusBadFormat        status = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
	statusHeaderBase64     status = "Jwt header is an invalid Base64url encoded"
	statusHeaderJSON       status = "Jwt header is an invalid JSON"
	statusHeaderAlgorithm  status = "Jwt header [alg] field is required and must be a string"
	statusAlgorithmUnknown status = "Jwt header [alg] is not supported"
	statusHeaderKeyID      status = "Jwt header [kid] field is not a string"
	statusPayloadBase64    status = "Jwt payload is an invalid Base64url encoded"
	statusPayloadJSON      status = "Jwt payload is an invalid JSON"
	statusPayloadAudiences status = "Jwt payload [aud] field is not a string or string list"
	statusSignatureBase64  status = "Jwt signature is an invalid Base64url encoded"
	statusEd25519Length    status = "Jwt ED25519 signature is wrong length"
	statusNotYetValid      status = "Jwt not yet valid"
	statusExpired          status = "Jwt is expired"
	statusNoValidKeys      status = "Jwks doesn't have any valid public key"
	statusNoMatchingKey    status = "Jwks doesn't have key to match kid or alg from Jwt"
)

// notString and the like are statuses about a claim.
func notString(claim string) status {
	return status("Jwt payload [" + claim + "] field is not a string")
}

func notInteger(claim string) status {
	return status("Jwt payload [" + claim + "] field is not an integer")
}

func outOfRange(claim string) status {
	return status("Jwt payload [" + claim + "] field is not a positive 64 bit integer")
}
