package peers

import "strings"

// Suspended tells people why nothing is put to sleep at present, as far as it is known here: an activator is silent, or nobody
// leads. It returns "" where neither is so. Who is cut off from the leader does not know whether that leads: it names it with those
// that are silent.
func (f *Fleet) Suspended() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if names := f.silentMembers(); len(names) > 0 {
		return "not heard from: " + strings.Join(names, ", ")
	}
	if !f.leads() && f.leader == "" {
		return "no activator leads at present"
	}
	return ""
}
