// Package iptables redirects the connections of a pod or a machine to the bridge, or to APISIX, in places
// where neither Istio's init container nor its CNI plugin does. With the same options the rules are those of
// istio-iptables, so that each of the two can replace what the other has made.
//
// Render gives the rules, a Tool applies them and takes them away. An application is one input to
// iptables-restore for each family of addresses: the kernel takes a table as a whole or not at all, and
// whatever was there of an earlier application is replaced in the same step.
package iptables
