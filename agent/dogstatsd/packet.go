package dogstatsd

import "net/netip"

// A Batch is what one read of a socket brought: datagrams, or frames of one
// stream, in the order of their arrival. Whoever receives it calls Release when
// done.
type Batch struct {
	Transport Transport
	Packets   []Packet

	buffer   []byte    // what Packets point into
	messages *messages // the kernel's way to buffer; nil for a stream
	bytes    int       // received into the batch, with what Packets leave out
	list     *freeList // whose memory it is; nil for nobody's
}

// Release gives the batch's memory back. Neither the batch nor any of its
// packets' Data may be used after.
func (b *Batch) Release() {
	if b.list != nil {
		b.list.put(b)
	}
}

// A Packet is one datagram, or one frame of a stream: a view into its batch.
type Packet struct {
	Data []byte
	// PID is the sender's process as this process' PID namespace sees it, or 0
	// when it is not known. Of a stream it is the one that connected.
	PID int32
	// Addr is where a UDP datagram came from; the zero Addr otherwise.
	Addr netip.Addr
}

// A Transport names a kind of socket.
type Transport string

// The transports. The names are metric labels.
const (
	UDP        Transport = "udp"
	Unixgram   Transport = "uds"
	UnixStream Transport = "uds_stream"
)
