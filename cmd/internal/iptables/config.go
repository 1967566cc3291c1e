package iptables

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Any stands for all ports, ranges or groups, where it is the only element of the list.
const Any = "*"

// Config says what is redirected, and what is not. Ports are numbers or, as iptables has them, FIRST:LAST.
type Config struct {
	// OutboundPort and InboundPort are where connections are redirected to.
	OutboundPort, InboundPort uint16
	// TunnelPort is that of HBONE, which speaks to a proxy itself and is left alone.
	TunnelPort uint16
	// Users and Groups are those of the proxy, whose connections are not redirected.
	Users, Groups []string

	// InboundPorts are redirected, or Any but ExcludedInboundPorts. None redirects nothing inbound.
	InboundPorts, ExcludedInboundPorts []string
	// OutboundRanges are destinations that are redirected, or Any but ExcludedOutboundRanges, as addresses
	// with the length of their prefix. None redirects nothing outbound but OutboundPorts.
	OutboundRanges, ExcludedOutboundRanges []string
	// OutboundPorts are redirected whatever their destination, ExcludedOutboundPorts never.
	OutboundPorts, ExcludedOutboundPorts []string
	// OwnerGroups are those whose connections are redirected, or Any but ExcludedOwnerGroups.
	OwnerGroups, ExcludedOwnerGroups []string

	// VirtualInterfaces are those of virtual machines in the pod: what comes in there is outbound.
	VirtualInterfaces []string
	// ExcludedInterfaces are left alone in both directions.
	ExcludedInterfaces []string

	// DNS redirects requests of the workload to its DNS server; nil does not.
	DNS *DNS
	// DropInvalid drops packets that connection tracking cannot place, instead of resetting connections.
	DropInvalid bool
	// Loopback are the addresses through which containers of a pod speak to each other.
	Loopback netip.Prefix
	// IPv6 makes rules for it, too.
	IPv6 bool
}

// DNS says which requests are redirected.
type DNS struct {
	// Port is that of the workload's DNS server.
	Port uint16
	// Servers are those whose requests are redirected; nil are all.
	Servers []netip.Addr
}

// maxOwnerGroups is how many matches fit into one rule everywhere.
const maxOwnerGroups = 64

var (
	// Names as the kernel takes them; a + at the end of an interface stands for anything.
	interfaceName = regexp.MustCompile(`^[^\s/]{1,15}$`)
	ownerName     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$`)
)

// Validate names everything that iptables would not accept, so that a typo never reaches the kernel.
func (c *Config) Validate() error {
	var errs []error
	for _, p := range []struct {
		what string
		port uint16
	}{{"outbound port", c.OutboundPort}, {"inbound port", c.InboundPort}, {"tunnel port", c.TunnelPort}} {
		if p.port == 0 {
			errs = append(errs, fmt.Errorf("the %s is 0", p.what))
		}
	}
	for _, l := range []struct {
		what   string
		values []string
		any    bool
		check  func(string) error
	}{
		{"inbound ports", c.InboundPorts, true, checkPorts},
		{"excluded inbound ports", c.ExcludedInboundPorts, false, checkPorts},
		{"outbound ports", c.OutboundPorts, false, checkPorts},
		{"excluded outbound ports", c.ExcludedOutboundPorts, false, checkPorts},
		{"outbound ranges", c.OutboundRanges, true, checkRange},
		{"excluded outbound ranges", c.ExcludedOutboundRanges, false, checkRange},
		{"owner groups", c.OwnerGroups, true, checkOwner},
		{"excluded owner groups", c.ExcludedOwnerGroups, false, checkOwner},
		{"users of the proxy", c.Users, false, checkOwner},
		{"groups of the proxy", c.Groups, false, checkOwner},
		{"virtual interfaces", c.VirtualInterfaces, false, checkInterface},
		{"excluded interfaces", c.ExcludedInterfaces, false, checkInterface},
	} {
		if l.any && isAny(l.values) {
			continue
		}
		for _, v := range l.values {
			if err := l.check(v); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", l.what, err))
			}
		}
	}
	if len(c.Users) == 0 && len(c.Groups) == 0 {
		errs = append(errs, errors.New("neither users nor groups of the proxy: its own connections would be redirected to it"))
	}
	if !isAny(c.OwnerGroups) && len(c.OwnerGroups) > maxOwnerGroups {
		errs = append(errs, fmt.Errorf("owner groups: %d of them do not fit into one rule, at most %d do", len(c.OwnerGroups), maxOwnerGroups))
	}
	if !c.Loopback.IsValid() || !c.Loopback.Addr().Is4() || !c.Loopback.Addr().IsLoopback() || c.Loopback.Bits() < 8 {
		errs = append(errs, fmt.Errorf("loopback: %s is no range within 127.0.0.0/8", c.Loopback))
	}
	if c.DNS != nil && c.DNS.Port == 0 {
		errs = append(errs, errors.New("the port of the DNS server is 0"))
	}
	return errors.Join(errs...)
}

func isAny(values []string) bool { return slices.Equal(values, []string{Any}) }

func checkPorts(text string) error {
	first, last, isRange := strings.Cut(text, ":")
	a, err := strconv.ParseUint(first, 10, 16)
	b := a
	if err == nil && isRange {
		b, err = strconv.ParseUint(last, 10, 16)
	}
	if err != nil || b < a {
		return fmt.Errorf("%q is neither a port nor FIRST:LAST", text)
	}
	return nil
}

func checkRange(text string) error {
	_, err := netip.ParsePrefix(text)
	return err
}

func checkOwner(text string) error {
	if !ownerName.MatchString(text) {
		return fmt.Errorf("%q is neither a number nor a name", text)
	}
	return nil
}

func checkInterface(text string) error {
	if !interfaceName.MatchString(text) {
		return fmt.Errorf("%q is no name of an interface", text)
	}
	return nil
}
