// Command workload is for the conformance tests: it gets its certificate from istiod, asks for its
// configuration over mutual TLS with that certificate and no token, and answers DNS from the name
// table. It prints a line for each of these:
//
//	identity ID SERIAL      for each certificate that becomes current
//	clusters N              when the configuration is complete
//	dns ADDRESS             where queries are answered
//	names N                 for each name table
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"meshbridge/capture/dns"
	"meshbridge/identity"
	"meshbridge/xds"
)

const serverName = "istiod.istio-system.svc"

func main() {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, logger)
	cancel()
	if err != nil {
		logger.Error("workload ended", slog.Any("error", err))
		os.Exit(1)
	}
}

func run(ctx context.Context, logger *slog.Logger) error {
	var address, token, root, upstream string
	var ttl time.Duration
	flag.StringVar(&address, "istiod", "", "istiod's TLS address")
	flag.StringVar(&token, "token", "", "file with the token of the service account default/client")
	flag.StringVar(&root, "root", "", "file with the root certificates")
	flag.StringVar(&upstream, "upstream", "127.0.0.1:9", "nameserver for other names than istiod's")
	flag.DurationVar(&ttl, "ttl", 0, "life of a certificate")
	flag.Parse()

	source, err := identity.Istiod(identity.IstiodConfig{
		Address: address, ServerName: serverName, TokenFile: token, RootFile: root, TTL: ttl,
		Namespace: "default", ServiceAccount: "client", Logger: logger,
		Backoff: identity.Backoff{Base: 100 * time.Millisecond, Max: time.Second},
	})
	if err != nil {
		return err
	}
	server, err := newDNS(upstream, logger)
	if err != nil {
		return err
	}
	fmt.Println("dns", server.Addresses()[0])
	client, err := newClient(address, root, source, logger)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return source.Run(ctx) })
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error { return client.Run(ctx, func(u xds.Update) { follow(u, server, logger) }) })
	group.Go(func() error {
		for {
			changed := source.Changed()
			if current := source.Current(); current != nil {
				fmt.Println("identity", current.ID, current.Certificate.Leaf.SerialNumber.Text(16))
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
		}
	})
	return group.Wait()
}

func newDNS(upstream string, logger *slog.Logger) (*dns.Server, error) {
	nameserver, err := netip.ParseAddrPort(upstream)
	if err != nil {
		return nil, err
	}
	return dns.New(dns.Config{
		Addresses: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Namespace: "default",
		Upstreams: []netip.AddrPort{nameserver}, Logger: logger,
	})
}

func newClient(address, root string, source identity.Source, logger *slog.Logger) (*xds.Client, error) {
	node, err := xds.NodeConfig{
		PodName: "client-abc", Namespace: "default", ServiceAccount: "client", ClusterID: "Kubernetes",
		IPs:      []netip.Addr{netip.MustParseAddr("10.9.0.1")},
		Metadata: map[string]any{"DNS_CAPTURE": "true", "DNS_AUTO_ALLOCATE": "true"},
	}.Node()
	if err != nil {
		return nil, err
	}
	return xds.New(xds.Config{
		Address: address, Node: node, NameTable: true, Logger: logger,
		TransportCredentials: xds.NewTLSCredentials(xds.TLSConfig{
			RootFile: root, ServerName: serverName, GetClientCertificate: identity.ClientCertificate(source),
		}),
		Backoff: xds.Backoff{Base: 50 * time.Millisecond, Max: time.Second},
	})
}

// follow hands the name table on, and tells what came.
func follow(u xds.Update, server *dns.Server, logger *slog.Logger) {
	if u.Complete() {
		fmt.Println("clusters", u.Snapshot.Len(xds.ClusterType))
	}
	resource := u.Snapshot.Get(xds.Key{Type: xds.NameTableType})
	if resource == nil {
		return
	}
	table, err := xds.DecodeNameTable(resource)
	if err != nil {
		logger.Error("name table", slog.Any("error", err))
		return
	}
	hosts := make([]dns.Host, 0, len(table.Names))
	for name, info := range table.Names {
		hosts = append(hosts, dns.Host{
			Name: name, Addresses: info.Addresses, Kubernetes: info.Registry == "Kubernetes",
			Shortname: info.Shortname, Namespace: info.Namespace, Others: info.AltHosts,
		})
	}
	server.SetNames(hosts)
	fmt.Println("names", len(hosts))
}
