// Package admin answers on the admin port as Envoy's admin API does, from the resources as they were
// received, so that istioctl and what else reads Envoy's state works on the bridge:
//
//	istioctl proxy-config, proxy-status POD   /config_dump, /clusters?format=json
//	istioctl proxy-config log                 /logging
//	istioctl bug-report                       /certs, /listeners, /memory, /server_info, /runtime, ...
//
// What is active is what has been translated and committed; what has been received and not been
// translated yet is warming. The health of hosts is what EDS says of it: what APISIX finds out by its own
// checks is not known here. Private keys, and whatever else Envoy's API marks as sensitive, are replaced
// by "[redacted]".
//
// Paths that change something want POST. Only this host is answered, and no web page of another one.
package admin
