package hold

// Timers returns how many timers are set for the gate as a whole.
func (g *Gate) Timers() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, set := range []bool{g.pacing, g.expiring, g.scarce} {
		if set {
			n++
		}
	}
	return n
}
