// Package console is the status page at "/" of the admin port, for people who want to know what the bridge
// is doing and why: server-rendered HTML without scripts, and the same as JSON below /api/v1.
//
//	/           now           state, certificates, watchers            /api/v1/now
//	/sync       sync          each type of resource                    /api/v1/sync
//	/resources  side by side  resources and what became of them        /api/v1/resources, /api/v1/resource
//	/warnings   warnings      what APISIX cannot express exactly       /api/v1/warnings
//	/graph      graph         hosts, routes, clusters, endpoints       /api/v1/graph
//	/check      route check   which route a request gets, and why      /api/v1/check
//	/changes    changes       the last revisions as differences        /api/v1/changes
//	/tools      tools         log levels, dumps, commands              /api/v1/tools
//
// A view is made for each request from the bridge's immutable view of the world and from what the store
// holds; the pipeline is never asked, and pays only for the Journal. Secrets are replaced by "[redacted]".
// What comes from the mesh is hostile until html/template has escaped it, and nothing on a page may run:
// the Content-Security-Policy forbids scripts and everything from elsewhere.
//
// The handlers are to be behind admin.Guard.
package console
