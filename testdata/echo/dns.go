package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sync/errgroup"
)

// serveDNS answers queries for IPv4 addresses over UDP and TCP.
func serveDNS(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("dns", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:53", "address")
	records := map[string]netip.Addr{}
	flags.Func("record", "`name=address`", func(s string) error {
		name, address, _ := strings.Cut(s, "=")
		var err error
		records[name+"."], err = netip.ParseAddr(address)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", *listen)
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp", *listen)
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, func() { _, _ = packets.Close(), streams.Close() })
	group.Go(func() error {
		buffer := make([]byte, 4096)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return unlessOver(ctx, err)
			}
			if response, err := resolve(records, buffer[:n]); err == nil {
				_, _ = packets.WriteTo(response, from)
			}
		}
	})
	group.Go(func() error {
		for {
			conn, err := streams.Accept()
			if err != nil {
				return unlessOver(ctx, err)
			}
			go serveStream(conn, records)
		}
	})
	fmt.Println("ready")
	return group.Wait()
}

func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serveStream answers queries, each behind its length.
func serveStream(conn net.Conn, records map[string]netip.Addr) {
	defer func() { _ = conn.Close() }()
	buffer := make([]byte, 2+4096)
	for {
		n, err := conn.Read(buffer)
		if err != nil || n < 2 {
			return
		}
		response, err := resolve(records, buffer[2:n])
		if err != nil {
			return
		}
		_, _ = conn.Write(append([]byte{byte(len(response) >> 8), byte(len(response))}, response...))
	}
}

func resolve(records map[string]netip.Addr, query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil, errors.Join(err, errors.New("want one question"))
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	address, known := records[q.Name.String()]
	switch {
	case !known:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: address.As4()},
		}}
	}
	return m.Pack()
}

// callResolver asks the resolvers of /etc/resolv.conf, and prints the addresses.
func callResolver(ctx context.Context, args []string) error {
	var to target
	flags := flag.NewFlagSet("resolve", flag.ContinueOnError)
	to.add(flags)
	name := flags.String("name", "", "name")
	over := flags.String("over", "udp", "udp or tcp")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, to.timeout)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, *over, address)
	}}
	a := new(Answer)
	addresses, err := resolver.LookupHost(ctx, *name)
	if err != nil {
		a.Error = err.Error()
	}
	slices.Sort(addresses)
	a.Body = strings.Join(addresses, " ")
	return a.print()
}
