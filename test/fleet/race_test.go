//go:build race

package fleet

// schedules is how many are run unless a flag says otherwise: under the race detector each takes several times as long.
const schedules = 100
