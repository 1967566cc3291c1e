package translate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// SupportClass says how far a construct of Istio or Envoy works.
type SupportClass string

const (
	// Exact constructs do what they do in Envoy, up to what the codes of every listener say
	// (SupportedEverywhere).
	Exact SupportClass = "exact"
	// Approximate constructs work, with a difference that is stated.
	Approximate SupportClass = "approximate"
	// NeedsCapture constructs do what they do in Envoy in profile mesh, where capture stands between
	// the network and APISIX. In other profiles, the resources for them are reported or refused.
	NeedsCapture SupportClass = "needs capture"
	// NotYet constructs could be translated, and are reported or refused.
	NotYet SupportClass = "not yet"
	// NotPossible constructs have no counterpart in an unmodified APISIX.
	NotPossible SupportClass = "not possible"
)

// supportClasses lists the classes in the order in which the document counts them.
func supportClasses() []SupportClass {
	return []SupportClass{Exact, Approximate, NeedsCapture, NotYet, NotPossible}
}

// Support is what becomes of one construct.
type Support struct {
	// Construct is the name of the thing in Istio's documentation or else Envoy's; Source is the field
	// of xDS that has it.
	Construct, Source string
	Class             SupportClass
	// Becomes is what it is in APISIX, and how that differs.
	Becomes string
	// Codes are those of its diagnostics.
	Codes []Code
	// Test proves it: the name of a case in testdata/cases, of a recording in testdata/istiod, or of a
	// test function. It is empty where there is nothing but an absence to prove.
	Test string
}

// SupportSection is a part of the table.
type SupportSection struct {
	Title string
	Rows  []Support
}

// SupportTable returns what becomes of every construct of Istio and of what Envoy knows beyond it.
func SupportTable() []SupportSection {
	return slices.Concat(listenerSupport(), routeSupport(), trafficSupport(), accessSupport(), operationSupport())
}

// codesOfNoConstruct are those that no row of the table has, with the reason.
func codesOfNoConstruct() map[Code]string {
	return map[Code]string{
		codeLastGoodState:                "where the configuration comes from",
		"id_collision":                   "two resources whose names have the same hash",
		"invalid_object":                 "a safety net",
		"listener_decode":                "a resource that is broken",
		codeTooOld:                       "everything that needs more than APISIX 2.15",
		"setting_ignored":                "any other field that is set, also of later versions of Envoy",
		"string_match_unsupported":       "a kind of match that later versions of Envoy may bring",
		"path_missing":                   "a kind of match that later versions of Envoy may bring",
		codeProtocolOptions:              "a resource that is broken",
		codeResponseStatus:               "a configuration that Envoy refuses as well",
		"regex_unsupported":              "wherever there are regular expressions",
		"regex_backtracks":               "wherever there are regular expressions",
		codeRegexUnsupported:             "wherever there are regular expressions",
		"chain_match_unsupported":        "connections that the profile cannot tell from others",
		codeFilterIgnored:                "any other filter",
		"domain_taken":                   "names that differ in nothing that APISIX sees",
		"pseudo_header_unsupported":      "a header that requests do not have",
		codeEndpoint:                     "an endpoint that is no address",
		"route_discovery_unsupported":    "routes from elsewhere than istiod's stream",
		"filter_fault":                   "an EnvoyFilter",
		"filter_discovered":              "an EnvoyFilter or WasmPlugin",
		"listener_filter_ignored":        "an EnvoyFilter",
		"vhost_matcher_unsupported":      "an EnvoyFilter",
		"metadata_match_unsupported":     "what is known only after the route is chosen",
		"filter_state_match_unsupported": "an EnvoyFilter",
		CodeExtensionInvalid:             "what users add, in the directory of --extensions",
		CodeExtensionRefused:             "what users add, in the directory of --extensions",
		CodeExtensionShadowed:            "what users add, in the directory of --extensions",
		CodeExtensionUnchecked:           "what users add, in the directory of --extensions",
		CodeExtensionUnused:              "what users add, in the directory of --extensions",
		CodeExtensionIgnored:             "what users add, in the directory of --extensions",
		CodeExtensionDirectory:           "what users add, in the directory of --extensions",
		CodeUnenforcedExtension:          "what users add, in the directory of --extensions",
	}
}

// supportedEverywhere are the codes that every listener has.
func supportedEverywhere() []Code {
	return []Code{"request_normalization"}
}

// Explanation returns what there is to say about a code: its severity, its message and the reason
// for it, and the constructs that it is about. ok is false for what is no code.
func Explanation(code Code) (text string, ok bool) {
	info, ok := newCatalogue()[code]
	if !ok {
		return "", false
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)\n\n%s.\n\n%s\n", info.Code, info.Severity, anyMessage(info), info.Explanation)
	var about []string
	for _, section := range SupportTable() {
		for _, row := range section.Rows {
			if slices.Contains(row.Codes, code) {
				class := string(row.Class)
				if oldest := row.oldest(); oldest != "" {
					class += ", APISIX " + oldest
				}
				about = append(about, fmt.Sprintf("  %s (%s): %s", row.Construct, class, row.Becomes))
			}
		}
	}
	switch why, general := codesOfNoConstruct()[code]; {
	case len(about) > 0:
		fmt.Fprintf(&b, "\nWhere it appears:\n%s\n", strings.Join(about, "\n"))
	case slices.Contains(supportedEverywhere(), code):
		b.WriteString("\nWhere it appears: on every HTTP listener.\n")
	case general:
		fmt.Fprintf(&b, "\nWhere it appears: %s.\n", why)
	}
	if code == codeTooOld {
		fmt.Fprintf(&b, "\nFrom which release on:\n%s", floors())
	}
	return b.String(), true
}

// anyMessage is a code's message with … for what differs.
func anyMessage(info CodeInfo) string {
	return regexp.MustCompile(`%[a-z%]`).ReplaceAllStringFunc(info.Summary, func(verb string) string {
		switch verb {
		case "%%":
			return "%"
		case "%q":
			return `"…"`
		}
		return "…"
	})
}
