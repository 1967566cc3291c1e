package translate

import "time"

const codeLastGoodState Code = "last_good_state"

// sourceCodes are the codes of where resources come from, which translation does not know: see
// LastGoodState.
func sourceCodes() []CodeInfo {
	return []CodeInfo{
		{
			codeLastGoodState, SeverityWarning,
			"the configuration that an earlier process received at %s is served, because istiod has not sent a complete one since the start; %d resources with private keys are missing in it",
			"With --last-good-state, a bridge that starts while istiod is away serves what it had before. Endpoints may have moved and policies may have changed meanwhile. The first complete configuration of istiod replaces it. Private keys are not kept unless --last-good-keys is set.",
		},
	}
}

// LastGoodState returns the diagnostic of a world that an earlier process received, without as many
// resources.
func LastGoodState(received time.Time, missing int) Diagnostic {
	d := newCatalogue().diagnostic(codeLastGoodState, received.UTC().Format(time.RFC3339), missing)
	d.Resource = "configuration"
	return d
}
