package translate

import (
	"net/netip"
	"strconv"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"meshbridge/translate/apisix"
)

// prefixOf returns a range of addresses; without a length, it is the whole family.
func prefixOf(r *corepb.CidrRange) (netip.Prefix, error) {
	address, err := netip.ParseAddr(r.GetAddressPrefix())
	if err != nil {
		return netip.Prefix{}, err
	}
	return address.Prefix(min(int(r.GetPrefixLen().GetValue()), address.BitLen()))
}

func (x *accessCompiler) within(r *corepb.CidrRange, test func(netip.Prefix) predicate) predicate {
	prefix, err := prefixOf(r)
	if err != nil {
		return x.unknown("address range " + r.GetAddressPrefix())
	}
	return test(prefix)
}

// onAddress is a condition on the address in a variable.
func (x *accessCompiler) onAddress(variable string, p netip.Prefix) predicate {
	switch {
	case x.version.Has(apisix.FeatureIPMatch):
	case p.Addr().Is4():
		return exactly(when(apisix.Match(variable, `\A`+ipv4Regex(p)+`\z`)))
	default:
		reportTooOld(x.report, apisix.FeatureIPMatch, x.field, p.String())
		return unknown()
	}
	return exactly(when(apisix.IPMatch(variable, p.String())))
}

// peerAddress is a condition on the address that the connection comes from.
func (x *accessCompiler) peerAddress(r *corepb.CidrRange) predicate {
	return x.within(r, func(p netip.Prefix) predicate { return x.onAddress(x.profile.PeerAddress(), p) })
}

// destinationAddress is a condition on the address that the client connected to.
func (x *accessCompiler) destinationAddress(r *corepb.CidrRange) predicate {
	variable, _ := x.profile.OriginalDestination()
	return x.within(r, func(p netip.Prefix) predicate {
		switch {
		case variable != "":
			return x.onAddress(variable, p)
		case !p.Addr().Is4(): // of IPv4 connections, which are all that the profile receives
			return constantly(false)
		}
		return exactly(when(apisix.Match(varOriginalDestination, `\A`+ipv4Regex(p)+`:`)))
	})
}

// destinationPort is a condition on the port that the client connected to: start <= port < end.
func (x *accessCompiler) destinationPort(start, end int64) predicate {
	if port := int64(x.chain.Port); port != 0 {
		return constantly(start <= port && port < end)
	}
	_, variable := x.profile.OriginalDestination()
	switch {
	case variable == "":
		return x.unknown("the destination's port")
	case end == start+1:
		return exactly(when(apisix.Eq(variable, strconv.FormatInt(start, 10))))
	}
	return exactly(when(apisix.InRange(variable, start, end)))
}

// codeTrustedHops is about the proxies in front that tell a client's address.
const codeTrustedHops Code = "trusted_hops_partial"

const varForwardedFor = "http_x_forwarded_for"

// remoteAddress is a condition on the client's address as Envoy's connection manager finds it: that
// of the connection, or one that X-Forwarded-For ends in. Of the header, only IPv4 addresses are
// understood.
func (x *accessCompiler) remoteAddress(r *corepb.CidrRange) predicate {
	facts := x.chain.facts
	connection := x.chain.connectionAddress(x.profile)
	switch {
	case facts.detectsAddress:
		return x.unknown("the client's address, which an extension detects,")
	case connection == "":
		return x.unknown("the client's address, which load balancers may tell or not,")
	}
	trusted := facts.trustedHops
	if facts.usesRemoteAddress {
		if trusted == 0 {
			return x.within(r, func(p netip.Prefix) predicate { return x.onAddress(connection, p) })
		}
		trusted--
	}
	behind := `[ \t]*\z`
	if trusted > 0 {
		behind = `[ \t]*(?:,[^,]*){` + strconv.FormatUint(uint64(trusted), 10) + `}\z`
	}
	at := func(address string) apisix.Cond {
		return apisix.Match(varForwardedFor, `(?:\A|,)[ \t]*`+address+behind)
	}
	return x.within(r, func(p netip.Prefix) predicate {
		absent := when(apisix.Absent(varForwardedFor))
		peer := x.onAddress(connection, p)
		in := constantly(false)
		if p.Addr().Is4() {
			in = exactly(when(at(ipv4Regex(p))))
		}
		understood := when(at(octet + `(?:\.` + octet + `){3}`))
		return anyOf(
			allOf(exactly(absent), peer),
			in,
			predicate{verdict{holds: false}, conjunction([]verdict{absent.not(), understood.not()})},
		)
	})
}

// octet matches a byte of an IPv4 address.
const octet = `(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])`

// ipv4Regex matches the textual form of the addresses of a range.
func ipv4Regex(p netip.Prefix) string {
	address, bits := p.Masked().Addr().As4(), p.Bits()
	octets := make([]string, len(address))
	for i, b := range address {
		switch own := min(max(bits-8*i, 0), 8); own {
		case 8:
			octets[i] = strconv.Itoa(int(b))
		case 0:
			octets[i] = octet
		default:
			var values []string
			for v := int(b); v < int(b)+1<<(8-own); v++ {
				values = append(values, strconv.Itoa(v))
			}
			octets[i] = `(?:` + strings.Join(values, "|") + `)`
		}
	}
	return strings.Join(octets, `\.`)
}
