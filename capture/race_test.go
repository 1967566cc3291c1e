//go:build race

package capture_test

// raceEnabled tells that the race detector makes everything slow.
const raceEnabled = true
