package syntax

// Verb is a method, as far as a proxy must know it. Methods are compared with their case (RFC 9110 section 9.1).
type Verb uint8

// Verbs.
const (
	VerbOther Verb = iota
	VerbGet
	VerbHead
	VerbPost
	VerbPut
	VerbPatch
	VerbDelete
	VerbOptions
	VerbTrace
	VerbConnect
)

// Idempotent reports whether a request that was sent twice has the effect of one (RFC 9110 section 9.2.2).
func (v Verb) Idempotent() bool {
	switch v {
	case VerbGet, VerbHead, VerbOptions, VerbTrace, VerbPut, VerbDelete:
		return true
	default:
		return false
	}
}

func verbOf(method []byte) Verb {
	switch string(method) {
	case "GET":
		return VerbGet
	case "HEAD":
		return VerbHead
	case "POST":
		return VerbPost
	case "PUT":
		return VerbPut
	case "PATCH":
		return VerbPatch
	case "DELETE":
		return VerbDelete
	case "OPTIONS":
		return VerbOptions
	case "TRACE":
		return VerbTrace
	case "CONNECT":
		return VerbConnect
	}
	return VerbOther
}
