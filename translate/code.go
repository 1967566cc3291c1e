package translate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// CodeInfo documents a diagnostic code.
type CodeInfo struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	// Summary is the message, with the verbs of package fmt for what differs.
	Summary string `json:"summary"`
	// Explanation says why, and what can be done about it.
	Explanation string `json:"explanation"`
}

// Codes returns all diagnostic codes, sorted.
func Codes() []CodeInfo {
	return slices.SortedFunc(maps.Values(newCatalogue()), func(a, b CodeInfo) int {
		return strings.Compare(string(a.Code), string(b.Code))
	})
}

// catalogue finds codes by name.
type catalogue map[Code]CodeInfo

func newCatalogue() catalogue {
	c := catalogue{}
	for _, info := range slices.Concat(routingCodes(), actionCodes()) {
		c[info.Code] = info
	}
	return c
}

// diagnostic fills in what the code says; the caller adds where.
func (c catalogue) diagnostic(code Code, args ...any) Diagnostic {
	info := c[code]
	return Diagnostic{Code: code, Severity: info.Severity, Message: fmt.Sprintf(info.Summary, args...)}
}

// diagnosticFor is catalogue.diagnostic for one diagnostic.
func diagnosticFor(code Code, args ...any) Diagnostic { return newCatalogue().diagnostic(code, args...) }

func routingCodes() []CodeInfo {
	return nil
}
