package dogstatsd

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"sync/atomic"
)

// Defaults of ListenOptions.
const (
	DefaultBufferSize     = 8192
	DefaultReceiveBuffer  = 4 << 20
	DefaultQueueSize      = 4096
	DefaultMaxConnections = 1024
)

// batchSize is how many datagrams one read takes at most.
const batchSize = 64

// ListenOptions configures a Listener. The zero value is usable but for
// Address.
type ListenOptions struct {
	Address    string // host:port, or the path of the socket
	BufferSize int    // bytes of the largest datagram or frame; 0 means 8192
	// ReceiveBuffer is what the kernel may hold of a UDP socket's datagrams, in
	// bytes as SO_RCVBUF and net.core.rmem_max count them; 0 means 4 MiB.
	// Unix sockets have none: see Counts.
	ReceiveBuffer int
	// QueueSize is how many datagrams may be read and not yet released, rounded
	// up to batches of 64; 0 means 4096.
	QueueSize int
	// Readers is how many sockets share a UDP port, each with a goroutine and a
	// ReceiveBuffer of its own; 0 means 1. The kernel gives all datagrams of
	// one sender's socket to one of them, so that they stay in order. Only
	// Linux can share a port; a Unix datagram socket always has one reader, as
	// several could overtake each other; a stream has one for each connection.
	Readers        int
	MaxConnections int  // of a stream socket; 0 means 1024
	Credentials    bool // Unix sockets: ask the kernel for the sender's PID
	// EOLRequired drops what follows the last line feed of a datagram or frame,
	// which may be half a line.
	EOLRequired bool
	Log         *slog.Logger // nil discards
}

func (o ListenOptions) withDefaults() ListenOptions {
	o.BufferSize = cmp.Or(o.BufferSize, DefaultBufferSize)
	o.QueueSize = cmp.Or(o.QueueSize, DefaultQueueSize)
	o.Readers = max(1, o.Readers)
	o.MaxConnections = cmp.Or(o.MaxConnections, DefaultMaxConnections)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Counts are what a Listener has received since it was opened, and what it
// could not. What a Unix socket has no room for is not among them, as nobody
// but its sender knows: it waits, or is told EAGAIN or ENOBUFS.
type Counts struct {
	Packets      uint64 `json:"packets"`      // datagrams, or frames
	Bytes        uint64 `json:"bytes"`        // of packets
	Truncated    uint64 `json:"truncated"`    // datagrams larger than the buffer, whose last line was lost
	Unterminated uint64 `json:"unterminated"` // packets whose last line was dropped as no line feed followed: EOLRequired
	KernelDrops  uint64 `json:"kernel_drops"` // datagrams that the socket's queue had no room for; 0 where the kernel does not tell
	ReadErrors   uint64 `json:"read_errors"`

	Connections        uint64 `json:"connections"`         // of a stream socket, open now
	ConnectionsRefused uint64 `json:"connections_refused"` // closed at once, as there were MaxConnections
	FramesTooLong      uint64 `json:"frames_too_long"`     // announced larger than the buffer: their connections were closed
	FramesCutShort     uint64 `json:"frames_cut_short"`    // whose connection ended before they did

	ReceiveBuffer int `json:"receive_buffer"` // bytes that the kernel grants each UDP socket, in the option's unit
}

// A Listener reads what is sent to one address.
type Listener struct {
	o         ListenOptions
	transport Transport
	address   string
	free      *freeList
	sockets   []*datagramSocket // one or more of UDP, one of Unixgram
	stream    *streamSocket     // of UnixStream
	granted   int               // Counts.ReceiveBuffer
	rests     bool              // see restTime

	packets, bytes, truncated, unterminated, readErrors atomic.Uint64
	connections, refused, tooLong, cutShort             atomic.Uint64
}

func newListener(o ListenOptions, t Transport) *Listener {
	l := &Listener{o: o.withDefaults(), transport: t, address: o.Address}
	// A reader waits for data with a batch in its hands: one more lets it go on
	// while that is being handled.
	n := max((l.o.QueueSize+batchSize-1)/batchSize, 2*l.o.Readers)
	l.free = newFreeList(n, l.newBatch)
	return l
}

func (l *Listener) newBatch() *Batch {
	b := &Batch{Transport: l.transport, Packets: make([]Packet, 0, batchSize)}
	if l.transport == UnixStream {
		b.buffer = make([]byte, streamBuffer(l.o.BufferSize))
		return b
	}
	b.buffer = make([]byte, batchMessages*l.o.BufferSize)
	b.messages = newMessages(b.buffer, l.o, l.transport)
	return b
}

// Close closes the socket of a listener that was never run.
func (l *Listener) Close() error {
	if l.stream != nil {
		return l.stream.listener.Close()
	}
	return closeAll(l.sockets)
}

// Addr returns where the listener listens.
func (l *Listener) Addr() string { return l.address }

// Transport returns the socket's kind.
func (l *Listener) Transport() Transport { return l.transport }

// Readers returns how many sockets share the address, each with a reader; 0 for
// a stream, where each connection has one.
func (l *Listener) Readers() int { return len(l.sockets) }

// Counts returns what has been received so far.
func (l *Listener) Counts() Counts {
	c := Counts{
		Packets: l.packets.Load(), Bytes: l.bytes.Load(), Truncated: l.truncated.Load(),
		Unterminated: l.unterminated.Load(), ReadErrors: l.readErrors.Load(),
		Connections: l.connections.Load(), ConnectionsRefused: l.refused.Load(),
		FramesTooLong: l.tooLong.Load(), FramesCutShort: l.cutShort.Load(),
		ReceiveBuffer: l.granted,
	}
	if l.transport == UDP {
		for _, s := range l.sockets {
			c.KernelDrops += s.drops.read(s.conn)
		}
	}
	return c
}

// Run sends what arrives to out until ctx ends, then reads what the socket
// still holds, for a bounded time, and closes it. It must be called once. Until
// it returns, somebody has to receive from out and release each batch. While
// out is full or QueueSize is reached the kernel's queue fills; what that
// cannot take is counted in KernelDrops (UDP) or makes senders wait (Unix).
func (l *Listener) Run(ctx context.Context, out chan<- *Batch) error {
	if l.stream != nil {
		return l.stream.run(ctx, out)
	}
	return l.runDatagrams(ctx, out)
}

// take adds a datagram or frame to b, less what must not be read of it.
func (l *Listener) take(b *Batch, p Packet, truncated bool) {
	b.bytes += len(p.Data)
	if truncated || l.o.EOLRequired {
		// Half a line can be a valid line that means something else.
		whole := p.Data[:bytes.LastIndexByte(p.Data, '\n')+1]
		switch {
		case truncated:
			l.truncated.Add(1)
		case len(whole) < len(p.Data):
			l.unterminated.Add(1)
		}
		p.Data = whole
	}
	b.Packets = append(b.Packets, p)
}

func (l *Listener) deliver(b *Batch, out chan<- *Batch) {
	l.packets.Add(uint64(len(b.Packets)))
	l.bytes.Add(uint64(b.bytes))
	out <- b
}
