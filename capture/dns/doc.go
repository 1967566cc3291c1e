// Package dns is the DNS server in front of the application: with Istio's DNS capture
// (ISTIO_META_DNS_CAPTURE), the application's queries are redirected to port 15053. Names that istiod
// knows are answered from its name table, as Istio's agent answers them; all others are forwarded, as
// they are, to the resolvers that the application meant.
//
//	application ──▶ Server ──▶ names: istiod's table, shorter names, wildcards
//	                   └─────▶ forwarder: the nameservers of resolv.conf, UDP and TCP
//
// That is what gives ServiceEntry hosts the addresses that istiod allocated for them, and names that
// only the mesh knows any address at all.
package dns
