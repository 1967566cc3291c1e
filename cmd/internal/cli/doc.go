// Package cli is the meshbridge command: flags, configuration and output. What runs lives in
// package bridge.
package cli
