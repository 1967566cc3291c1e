package console

import (
	"cmp"
	"slices"
	"strings"
	"unicode"

	"meshbridge/xds"
)

// typeOrder is the order in which types are shown: the way of a request.
func typeOrder() []string {
	return []string{xds.ListenerType, xds.RouteType, xds.ClusterType, xds.EndpointType, xds.SecretType, xds.ExtensionType, xds.NameTableType}
}

// byType compares type URLs in the order in which they are shown.
func byType(a, b string) int {
	place := func(url string) int {
		if i := slices.Index(typeOrder(), url); i >= 0 {
			return i
		}
		return len(typeOrder())
	}
	return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b))
}

// printable replaces what has no form of its own.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\ufffd'
	}, text)
}
