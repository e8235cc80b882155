// Package sock reads and writes connections for the HTTP/1.1 engine: without a buffer while nothing comes, without
// allocating, and on Linux with as little as one system call can cost.
package sock

import "sync"

// Buffer holds what was read from a connection and was not used yet: B[R:W].
type Buffer struct {
	B    []byte
	R, W int
}

// Bytes returns what was read and not used. It is valid until the next Fill, Compact or Grow.
func (b *Buffer) Bytes() []byte { return b.B[b.R:b.W] }

// Len returns how many bytes those are.
func (b *Buffer) Len() int { return b.W - b.R }

// Skip marks n bytes as used, n being at most Len.
func (b *Buffer) Skip(n int) {
	if n < 0 || n > b.Len() {
		panic("sock: more bytes skipped than were read")
	}
	if b.R += n; b.R == b.W {
		b.R, b.W = 0, 0
	}
}

// Room returns how many bytes can be read behind the others. Compact may make it more.
func (b *Buffer) Room() int { return len(b.B) - b.W }

// Compact moves the unused bytes to the front.
func (b *Buffer) Compact() {
	if b.R > 0 {
		b.W = copy(b.B, b.B[b.R:b.W])
		b.R = 0
	}
}

// Grow doubles the buffer, to most bytes at the most, and moves the unused bytes to its front. It returns false, and does
// nothing, if the buffer is that large already.
func (b *Buffer) Grow(most int) bool {
	if len(b.B) >= most {
		return false
	}
	grown := make([]byte, min(2*len(b.B), most))
	b.W = copy(grown, b.B[b.R:b.W])
	b.B, b.R = grown, 0
	return true
}

// Pool keeps buffers of one size that nobody uses. Its methods are safe for concurrent use.
type Pool struct {
	size  int       // bytes
	free  sync.Pool // of *Buffer
	pipes sync.Pool // of *pipe
}

// NewPool returns a pool of buffers of size bytes.
func NewPool(size int) *Pool { return &Pool{size: size} }

// Get returns an empty buffer.
func (p *Pool) Get() *Buffer {
	if b, ok := p.free.Get().(*Buffer); ok {
		return b
	}
	return &Buffer{B: make([]byte, p.size)}
}

// Put takes a buffer back, whatever is in it; the caller must not touch it again. One that has grown is left to the
// garbage collector.
func (p *Pool) Put(b *Buffer) {
	if len(b.B) == p.size {
		b.R, b.W = 0, 0
		p.free.Put(b)
	}
}
