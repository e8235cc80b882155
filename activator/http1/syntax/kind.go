package syntax

// Kind is what a proxy must know about a field's name.
type Kind uint8

// Kinds. Each is named as the field is.
const (
	KindOther Kind = iota
	KindHost
	KindConnection
	KindKeepAlive
	KindProxyConnection
	KindProxyAuthenticate
	KindProxyAuthorization
	KindTE
	KindTrailer
	KindTransferEncoding
	KindContentLength
	KindUpgrade
	KindHTTP2Settings
	KindExpect
	KindContentType
	KindXForwardedFor
	KindXForwardedProto
	KindXForwardedHost
	KindPassed // Dormouse-Passed
	KindServerTiming
	KindDate
)

// kindOf returns the kind of a name, which is a token.
func kindOf(name []byte) Kind {
	switch len(name) {
	case 2:
		return is(name, "te", KindTE)
	case 4:
		return either(name, "host", KindHost, "date", KindDate)
	case 6:
		return is(name, "expect", KindExpect)
	case 7:
		return either(name, "upgrade", KindUpgrade, "trailer", KindTrailer)
	case 10:
		return either(name, "connection", KindConnection, "keep-alive", KindKeepAlive)
	case 12:
		return is(name, "content-type", KindContentType)
	case 13:
		return is(name, "server-timing", KindServerTiming)
	case 14:
		return either(name, "content-length", KindContentLength, "http2-settings", KindHTTP2Settings)
	case 15:
		return either(name, "x-forwarded-for", KindXForwardedFor, "dormouse-passed", KindPassed)
	case 16:
		return either(name, "x-forwarded-host", KindXForwardedHost, "proxy-connection", KindProxyConnection)
	case 17:
		return either(name, "transfer-encoding", KindTransferEncoding, "x-forwarded-proto", KindXForwardedProto)
	case 18:
		return is(name, "proxy-authenticate", KindProxyAuthenticate)
	case 19:
		return is(name, "proxy-authorization", KindProxyAuthorization)
	}
	return KindOther
}

func is(name []byte, lower string, k Kind) Kind {
	if EqualFold(name, lower) {
		return k
	}
	return KindOther
}

func either(name []byte, lower1 string, k1 Kind, lower2 string, k2 Kind) Kind {
	if EqualFold(name, lower1) {
		return k1
	}
	return is(name, lower2, k2)
}
