package model

// connection is an upstream connection.
type connection struct {
	m        *model
	endpoint string
	idle     bool // given to the gate
}

func (m *model) connect(endpoint string) *connection {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &connection{m: m, endpoint: endpoint}
	m.open[c] = true
	return c
}

// use notes that a lease came with c.
func (m *model) use(c *connection, endpoint string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case c.endpoint != endpoint:
		m.failLocked("a lease on %s came with a connection to %s", endpoint, c.endpoint)
	case !m.open[c]:
		m.failLocked("a lease on %s came with a connection that is closed", endpoint)
	case !c.idle:
		m.failLocked("a lease on %s came with a connection that is in use", endpoint)
	}
	c.idle = false
}

// Close implements [balance.Conn].
func (c *connection) Close() error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if !c.idle {
		c.m.failLocked("a connection to %s was closed in use, or twice", c.endpoint)
	}
	c.idle = false
	delete(c.m.open, c)
	return nil
}

func (c *connection) giveBack() {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.idle = true
}

// die closes a connection that the engine has.
func (c *connection) die() {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	delete(c.m.open, c)
}
