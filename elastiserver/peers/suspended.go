package peers

import "strings"

// Suspended tells people why nothing is put to sleep at present, as far as it is known here: nobody leads, or an activator is
// silent. It returns "" where neither is so.
func (f *Fleet) Suspended() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.leads() && f.leader == "" {
		return "no activator leads at present"
	}
	if names := f.silentMembers(); len(names) > 0 {
		return "not heard from: " + strings.Join(names, ", ")
	}
	return ""
}
