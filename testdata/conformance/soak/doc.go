// Package soak runs a small mesh under traffic and breaks it at random: istiod, two bridges and what
// stands for APISIX are killed, stopped and paused, connections to istiod are cut, stalled and slowed
// down, the disk of the bridges' state fills up, their clocks jump, tokens are rotated, and the
// configuration changes all the time. What must hold is checked all along:
//
//   - A request is answered by a backend and a route that some configuration names that may be in effect
//     (oracle.go); it fails only while a process that it passes is away.
//   - Revisions never go back, across restarts, and a key's revision never has two contents; a watch that
//     is resumed misses nothing (observer.go).
//
// Each storm is followed by calm, in which the objects must come to those of a bridge that was just
// started, APISIX must have them all, each route must work, and no process may hold more memory, goroutines
// or descriptors than before, or leave anything behind (calm.go).
//
//	make soak SOAKTIME=10m SEED=7
//
// The seed decides what happens and in which order; how long each step takes is up to the machine. A
// failure prints the seed, what happened before it, and where the programs' output is.
package soak
