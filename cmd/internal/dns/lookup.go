package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sync/errgroup"

	"meshbridge/translate"
)

// answer is what a name resolves to at a time.
type answer struct {
	addresses []netip.Addr // sorted, without duplicates; none is an answer too
	// ttl is how long the answer is good for; 0 where nobody says.
	ttl time.Duration
}

// client looks up names as the C library of the host would.
type client struct {
	servers    []string // instead of those in resolv.conf, if any
	resolvConf watchedFile[settings]
	hosts      watchedFile[map[string][]netip.Addr]
}

// lookup returns the addresses of a name, of the families that are wanted. It asks for both families
// at once; one that fails is no failure as long as the other has addresses.
func (c *client) lookup(ctx context.Context, host translate.HostName) (answer, error) {
	if found, err := c.local(host.Name, host.IPv4, host.IPv6); err != nil || found != nil {
		return answer{addresses: found}, err
	}
	conf, err := c.resolvConf.get()
	if err != nil {
		return answer{}, err
	}
	if len(c.servers) > 0 {
		conf.servers = c.servers
	}
	conf.prefer(host.Servers)
	var types []dnsmessage.Type
	if host.IPv4 {
		types = append(types, dnsmessage.TypeA)
	}
	if host.IPv6 {
		types = append(types, dnsmessage.TypeAAAA)
	}
	for _, candidate := range conf.candidates(host.Name) {
		found, err := conf.lookupTypes(ctx, candidate, types)
		// A failure ends the search: a wider domain may have an answer that is not meant.
		if err != nil || len(found.addresses) > 0 {
			return found, err
		}
	}
	return answer{}, nil
}

// prefer takes over what whoever wants a name says about servers.
func (s *settings) prefer(servers translate.NameServers) {
	if list := strings.Fields(servers.Addresses); len(list) > 0 {
		s.servers = list
	}
	s.useTCP = s.useTCP || servers.TCP
	if servers.NoSearch {
		s.search = nil
	}
}

// local returns what the hosts file has, or nil.
func (c *client) local(name string, v4, v6 bool) ([]netip.Addr, error) {
	hosts, err := c.hosts.get()
	if err != nil {
		return nil, err
	}
	var found []netip.Addr
	for _, a := range hosts[strings.ToLower(strings.TrimSuffix(name, "."))] {
		if a.Unmap().Is4() && v4 || !a.Unmap().Is4() && v6 {
			found = append(found, a)
		}
	}
	return sorted(found), nil
}

func (s *settings) lookupTypes(ctx context.Context, name string, types []dnsmessage.Type) (answer, error) {
	found, errs := make([]records, len(types)), make([]error, len(types))
	var both errgroup.Group
	for i, t := range types {
		both.Go(func() error {
			found[i], errs[i] = s.ask(ctx, name, t)
			return nil
		})
	}
	_ = both.Wait()
	var a answer
	for _, r := range found {
		a.addresses = append(a.addresses, r.addresses...)
		if r.ttl > 0 && (a.ttl == 0 || r.ttl < a.ttl) {
			a.ttl = r.ttl
		}
	}
	if err := errors.Join(errs...); err != nil && len(a.addresses) == 0 {
		return answer{}, errs[slices.IndexFunc(errs, func(e error) bool { return e != nil })]
	}
	a.addresses = sorted(a.addresses)
	return a, nil
}

// ask asks the servers one after the other until one has an answer.
func (s *settings) ask(ctx context.Context, name string, t dnsmessage.Type) (records, error) {
	var failed error
	for range s.attempts {
		for _, server := range s.servers {
			attempt, cancel := context.WithTimeout(ctx, s.timeout)
			found, err := query(attempt, server, name, t, s.useTCP)
			cancel()
			if err == nil {
				return found, nil
			}
			if ctx.Err() != nil {
				return records{}, ctx.Err()
			}
			failed = fmt.Errorf("%s: %w", server, err)
		}
	}
	return records{}, failed
}

// sorted sorts in place and drops duplicates, so that another order of records is no other answer.
func sorted(addresses []netip.Addr) []netip.Addr {
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses)
}
