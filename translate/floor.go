package translate

import (
	"strings"

	"meshbridge/translate/apisix"
)

// APISIX refuses an object with a field that its release does not know, ignores others, and gives some a
// meaning of their own. What objects use has a floor, the oldest release that has it: those are in
// apisix.Features. Below it, the same is said in another way where there is one (lower.go), and
// otherwise a diagnostic says what happens instead.

// codeTooOld is about what the release of APISIX does not have yet.
const codeTooOld Code = "apisix_too_old"

func floorCodes() []CodeInfo {
	return []CodeInfo{{
		codeTooOld, SeverityWarning, "%s: that needs APISIX %s; %s",
		"--apisix-version tells the release of APISIX, for which nothing is emitted that it would refuse, ignore or take for something else. Restrictions of access are enforced more strictly where a release cannot do them exactly.",
	}}
}

// insteadOf returns what happens below the floor of a feature; empty where nothing differs, or where
// nothing that is emitted has it.
func insteadOf(f apisix.Feature) string {
	switch f {
	case apisix.FeatureSSLs:
		return "the chain is not served"
	case apisix.FeatureIPMatch:
		return "conditions of access on IPv6 addresses are unknown, so that nobody is allowed by one and everybody denied"
	case apisix.FeatureResponseHeaders:
		return "what is added to a header of responses replaces it, and cookies are left out"
	case apisix.FeatureRequestHeaders:
		return "what is added to a header of requests replaces it, and values that are not ASCII are left out"
	case apisix.FeatureRewriteQuery:
		return "behind an encoded question mark, a path that is rewritten becomes the query"
	case apisix.FeatureLogFormat:
		return "lines of access logs have the fields that APISIX's configuration says"
	case apisix.FeatureLogMatch:
		return "access logs have a line for each request"
	case apisix.FeatureAbortHeaders:
		return "the answer has no headers of its own"
	case apisix.FeatureSkipMTLS:
		return "clients without a certificate are refused"
	case apisix.FeatureTLSProtocols:
		return "the range of TLS versions has no effect"
	case apisix.FeatureProxyProtocolTLV:
		return "the chain is not served"
	case apisix.FeatureHeaderLines:
		return "routes look at the first line alone; conditions of access on headers are unknown, so that nobody is allowed by one and everybody denied"
	case apisix.FeatureGRPCWebPath:
		return "gRPC-Web is forwarded as it is"
	case apisix.FeatureAnySNI:
		return "only the hosts of routes get a certificate"
	case apisix.FeatureTemplateDefault:
		return "a header, body or rewrite with one is left out"
	default:
		return ""
	}
}

// reportTooOld reports a feature that the release does not have. what names the part that wants it;
// empty for the whole feature.
func reportTooOld(report reporter, f apisix.Feature, field, what string) {
	name := f.String()
	if what != "" {
		name = what + ": " + name
	}
	report(codeTooOld, field, name, f.Since(), insteadOf(f))
}

// lackedBy returns a feature that conditions need and the release does not have; 0 for none.
func (s *State) lackedBy(conditions apisix.Vars) apisix.Feature {
	if s.options.APISIXVersion.HasAll() {
		return 0
	}
	for _, f := range conditions.Features() {
		if !s.options.APISIXVersion.Has(f) {
			return f
		}
	}
	return 0
}

// supportNeeds are the features without which constructs of the support table, by name, are not what
// the table says.
func supportNeeds() map[string][]apisix.Feature {
	return map[string][]apisix.Feature{
		"headers that are repeated":               {apisix.FeatureHeaderLines},
		"redirect: uri, prefix":                   {apisix.FeatureRewriteQuery},
		"rewrite uri (prefix)":                    {apisix.FeatureRewriteQuery},
		"rewrite uriRegexRewrite":                 {apisix.FeatureRewriteQuery},
		"rewrite by template":                     {apisix.FeatureRewriteQuery},
		"fault abort: httpStatus":                 {apisix.FeatureAbortHeaders},
		"fault abort: grpcStatus":                 {apisix.FeatureAbortHeaders},
		"headers.request set, add, remove":        {apisix.FeatureRequestHeaders},
		"headers added where absent":              {apisix.FeatureTemplateDefault},
		"headers.response set, add, remove":       {apisix.FeatureResponseHeaders},
		"consistentHash httpCookie with ttl":      {apisix.FeatureResponseHeaders},
		"persistent sessions by cookie":           {apisix.FeatureResponseHeaders},
		"principals, namespaces, serviceAccounts": {apisix.FeatureProxyProtocolTLV},
		"ipBlocks":       {apisix.FeatureIPMatch},
		"remoteIpBlocks": {apisix.FeatureIPMatch},
		"when: headers, server name, destination address": {apisix.FeatureHeaderLines},
		"access log to a file":                            {apisix.FeatureLogFormat},
		"filters of access logs":                          {apisix.FeatureLogMatch},
		"gRPC-Web":                                        {apisix.FeatureGRPCWebPath},
		"TLS SIMPLE":                                      {apisix.FeatureSSLs},
		"TLS for any host":                                {apisix.FeatureAnySNI},
		"TLS MUTUAL":                                      {apisix.FeatureSSLs},
		"TLS OPTIONAL_MUTUAL":                             {apisix.FeatureSkipMTLS},
		"minProtocolVersion, maxProtocolVersion":          {apisix.FeatureTLSProtocols},
		"credentialName, rotation of certificates":        {apisix.FeatureSSLs},
	}
}

// oldest returns the oldest release in which a construct is what the support table says; empty for 2.15.
func (s Support) oldest() string {
	var oldest apisix.Version
	for _, f := range supportNeeds()[s.Construct] {
		if since := f.Since(); oldest == (apisix.Version{}) || oldest.Compare(since) < 0 {
			oldest = since
		}
	}
	if oldest == (apisix.Version{}) {
		return ""
	}
	return "≥ " + oldest.String()
}

// floors lists the features whose lack is reported, for the explanation of codeTooOld.
func floors() string {
	var b strings.Builder
	for _, f := range apisix.Features() {
		if instead := insteadOf(f); instead != "" {
			b.WriteString("  " + f.Since().String() + ", " + f.String() + ": before, " + instead + "\n")
		}
	}
	return b.String()
}
