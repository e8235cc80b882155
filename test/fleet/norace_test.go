//go:build !race

package fleet

// schedules is how many are run unless a flag says otherwise.
const schedules = 800
