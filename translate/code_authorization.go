package translate

// Codes of rules of access, as AuthorizationPolicies become.
const (
	codeAuthenticationAnswer      Code = "authentication_answer"
	codeAuthenticationHeader      Code = "authentication_header"
	codeAuthenticationQuery       Code = "authentication_query"
	codeAuthenticationUnsupported Code = "authentication_unsupported"
	codeAuthorizationAudit        Code = "authorization_audit"
	codeAuthorizationDryRun       Code = "authorization_dry_run"
	codeAuthorizationHeaderName   Code = "authorization_header_name"
	codeAuthorizationPath         Code = "authorization_path"
	codeAuthorizationUnknown      Code = "authorization_unknown"
)

func authorizationCodes() []CodeInfo {
	return []CodeInfo{
		{
			codeAuthenticationAnswer, SeverityError, "the route answers before tokens are verified: it answers 403 instead",
			"APISIX would give this answer, of a status below 400, in a phase before the one in which it can ask about tokens.",
		},
		{
			codeAuthenticationHeader, SeverityError, "the route changes header %q, by which tokens are verified or what they say is passed on: it answers 403",
			"APISIX changes headers before tokens are verified, and Envoy afterwards. Leave the header to RequestAuthentication.",
		},
		{
			codeAuthenticationQuery, SeverityInfo, "a token that is found in the query stays there",
			"Envoy removes a token that has been verified, and is not to be forwarded, from the query. APISIX sends the query on as it is.",
		},
		{
			codeAuthenticationUnsupported, SeverityError, "tokens are not verified: %s",
			"The bridge verifies tokens for APISIX by the rules that istiod sends. Where it cannot, what requires a token is refused.",
		},
		{
			codeAuthorizationAudit, SeverityInfo, "requests are not marked for auditing",
			"The rules of an AuthorizationPolicy with action AUDIT refuse nobody. Envoy marks the requests that they match for its access log.",
		},
		{
			codeAuthorizationDryRun, SeverityInfo, "rules in dry-run mode are not evaluated",
			"They refuse nobody: Envoy logs and counts what they would do.",
		},
		{
			codeAuthorizationHeaderName, SeverityWarning, "header %q cannot be told from one whose name has - for _ or _ for -",
			"APISIX keeps both in one variable. With underscores_in_headers off in its nginx configuration, it drops headers with underscores.",
		},
		{
			codeAuthorizationPath, SeverityInfo, "requests whose path Envoy changes before it looks at the rules are refused: with dot segments, backslashes, or escapes of letters and digits",
			"Rules about paths are matched against the path as it was sent and as it was decoded. What allows must match both, and what denies either. Clients that send paths in their normal form notice nothing.",
		},
		{
			codeAuthorizationUnknown, SeverityError, "%s is not known to APISIX: rules that allow by it allow nobody, and rules that deny by it deny everybody",
			"What a rule asks for besides still counts: a rule that denies by something unknown on one path denies that path. Where this leaves nothing open, the filter is reported as unenforced as well.",
		},
	}
}
