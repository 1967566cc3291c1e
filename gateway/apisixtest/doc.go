// Package apisixtest is Apache APISIX as a client of etcd, for tests of what serves it: the same
// requests byte for byte where it matters, the same way of reading a watch stream, and the same
// bookkeeping of revisions, faults included. Three versions stand for the families that differ.
//
// A Client is one worker process. It loads objects as APISIX's config_etcd.lua and lua-resty-etcd do,
// and records every time that it had to read everything again, whether that was the server's fault, and
// whatever would have been an error inside APISIX:
//
//	c, err := apisixtest.New(apisixtest.V3_18, "http://127.0.0.1:2379", "/apisix")
//	go c.Run(ctx)
//	err = c.WaitFor(ctx, func(objects map[string]string) bool { return len(objects) == 3 })
//	// c.Faults() and c.NeedlessReloads() should be empty.
package apisixtest
