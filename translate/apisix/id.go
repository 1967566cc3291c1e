package apisix

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of APISIX's schema on ids, names, descriptions and label values, in bytes.
const (
	maxIDLength   = 64
	maxTextLength = 256
	// Without FeatureLongNames and FeatureLongLabels.
	maxOldNameLength  = 100
	maxOldLabelLength = 64

	hashLength = 10 // 50 bits: 100,000 objects collide with a probability of 4 in a million
)

// idEncoding is base32 in lower case.
var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ID returns an id for an object of ours: kind "." readable "." hash, at most 64 bytes of
// [a-zA-Z0-9-_.]. kind is one of r, u, t, s, pc and g. readable is for people: it is cleaned, loses
// ".svc.cluster.local", and is truncated before the hash. key is the canonical name of what the
// object stands for; the hash of it alone makes the id unique, so that an id never depends on
// neighbours or on the order of a list.
func ID(kind, readable, key string) string {
	sum := sha256.Sum256([]byte(key))
	var hash [16]byte
	idEncoding.Encode(hash[:], sum[:10]) // in whole groups of 5 bytes
	room := max(0, maxIDLength-len(kind)-2-hashLength)
	readable = readableID(readable)
	if len(readable) > room {
		readable = strings.TrimRight(readable[:room], ".")
	}
	return kind + "." + readable + "." + string(hash[:hashLength])
}

// readableID keeps the characters that an id may have; runs of others, and of dots, become one dot.
func readableID(s string) string {
	s = strings.ReplaceAll(s, ".svc.cluster.local", "")
	var b strings.Builder
	b.Grow(len(s))
	dot := true // swallow leading dots
	for i := range len(s) {
		c := s[i]
		if isAlphanumeric(c) || c == '-' || c == '_' {
			b.WriteByte(c)
			dot = false
		} else if !dot {
			b.WriteByte('.')
			dot = true
		}
	}
	out := strings.TrimRight(b.String(), ".")
	if out == "" {
		return "_"
	}
	return out
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// OwnedID tells whether an id is of the pattern that meshbridge keeps to itself in routes,
// upstreams, stream_routes, ssls, plugin_configs and global_rules, whether or not the object exists.
func OwnedID(id string) bool {
	kind, rest, ok := strings.Cut(id, ".")
	if !ok || rest == "" {
		return false
	}
	switch kind {
	case "r", "u", "t", "s", "pc", "g":
		return true
	}
	return false
}

// Name shortens a text to what APISIX accepts as a name or a description: 256 bytes, cut at a
// character.
func Name(s string) string { return shortened(s, maxTextLength) }

// Name shortens a text to what the version accepts as a name.
func (v Version) Name(s string) string { return shortened(s, v.maxName()) }

func (v Version) maxName() int {
	if v.Has(FeatureLongNames) {
		return maxTextLength
	}
	return maxOldNameLength
}

func shortened(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// LabelValue makes a text an acceptable label value: no white space, at most 256 bytes. An empty
// text stays empty, and APISIX refuses it: leave the label out.
func LabelValue(s string) string { return Version{}.LabelValue(s) }

// LabelValue is [LabelValue] for the version, where values may be shorter.
func (v Version) LabelValue(s string) string {
	return shortened(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return '_'
		}
		return r
	}, s), v.maxLabel())
}

func (v Version) maxLabel() int {
	if v.Has(FeatureLongLabels) {
		return maxTextLength
	}
	return maxOldLabelLength
}
