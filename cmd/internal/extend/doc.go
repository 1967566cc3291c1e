// Package extend reads what users add to the translated configuration from a directory, such as a mounted
// ConfigMap: plugins for the routes that a selector names, and objects of APISIX of their own. It decides which
// routes those are, and what of it may be added: never what would weaken the rules of access of the mesh.
package extend
