//go:build !race

package wire

// raceDetector is whether this is a build with the race detector.
const raceDetector = false
