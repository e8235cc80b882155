package httpx

// watchClient has the client of a connection of HTTP/1.1 watched: net/http does not know that it leaves as long as it has
// more to send, be it the rest of the body or another request.
func (x *exchange) watchClient() {
	if x.watch == 0 && x.client != nil && x.client.tcp != nil && x.r.ProtoMajor == 1 {
		x.watch = x.handler.options.Departures.Watch(x.client.tcp, x.departed)
	}
}

func (x *exchange) unwatchClient() {
	if x.watch == 0 {
		return
	}
	x.handler.options.Departures.Forget(x.client.tcp, x.watch)
	x.watch = 0
	select {
	case <-x.left:
	default:
	}
}

// clientDeparted is called by the watcher's goroutine.
func (x *exchange) clientDeparted() {
	select {
	case x.left <- struct{}{}:
	default:
	}
	x.interruption.interrupt(causeLeft)
}
