package bridge

import (
	"log/slog"

	"meshbridge/capture/dns"
	"meshbridge/xds"
)

// nameServer is told the names that istiod knows.
type nameServer interface {
	SetNames(hosts []dns.Host)
}

// serveNames hands the name table over, at once: nothing that is translated depends on it. Damaged
// entries leave the names of before.
func (p *pipeline) serveNames(u *xds.Update) {
	if p.nameServer == nil {
		return
	}
	for _, k := range u.Changed {
		if k.Type != xds.NameTableType {
			continue
		}
		r := u.Snapshot.Get(k)
		if r == nil {
			p.nameServer.SetNames(nil)
			continue
		}
		table, err := xds.DecodeNameTable(r)
		if err != nil {
			p.log.Warn("name table is not served", slog.Any("error", err))
			continue
		}
		p.nameServer.SetNames(hostsOf(table))
	}
}

func hostsOf(table *xds.NameTable) []dns.Host {
	hosts := make([]dns.Host, 0, len(table.Names))
	for name, info := range table.Names {
		hosts = append(hosts, dns.Host{
			Name: name, Addresses: info.Addresses, Kubernetes: info.Registry == kubernetesRegistry,
			Shortname: info.Shortname, Namespace: info.Namespace, Others: info.AltHosts,
		})
	}
	return hosts
}

// kubernetesRegistry is what istiod calls the registry of services in Kubernetes.
const kubernetesRegistry = "Kubernetes"
