// Package lastgood keeps the last good configuration in a file, so that a bridge that starts while istiod
// is away has something to serve.
//
// The file holds resources as istiod sent them, not what they were translated to: a newer version of
// the bridge translates them anew. Whatever carries a private key is left out unless that is asked for.
//
//	pipeline ──Keep──▶ State.Run ──▶ FILE.new ──rename──▶ FILE
//	istiod ──▶ State.Follow ──▶ pipeline
//	              ▲ FILE, where istiod has not sent a complete world in time
//
// A world of the file is replaced by the first complete world of istiod, as a whole: what is the same in
// both is no change.
package lastgood
