//go:build !linux

package dogstatsd

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	batchMessages  = 1
	sharesPorts    = false
	hasCredentials = false
)

// messages are what Linux needs to read many datagrams at once.
type messages struct{}

func newMessages([]byte, ListenOptions, Transport) *messages { return nil }

// A receiver reads datagrams from one socket, one at a time.
type receiver struct {
	l    *Listener
	conn packetConn
}

func newReceiver(l *Listener, conn packetConn, _ syscall.RawConn) *receiver {
	return &receiver{l: l, conn: conn}
}

// receive reads one datagram into the empty batch b. When there is none it
// waits, but without wait not beyond the deadline of the socket.
func (r *receiver) receive(b *Batch, wait bool) error {
	var p Packet
	var n, flags int
	var err error
	switch conn := r.conn.(type) {
	case *net.UDPConn:
		var from netip.AddrPort
		n, _, flags, from, err = conn.ReadMsgUDPAddrPort(b.buffer, nil)
		p.Addr = from.Addr().Unmap()
	case *net.UnixConn:
		n, _, flags, _, err = conn.ReadMsgUnix(b.buffer, nil)
	}
	switch {
	case err != nil && !wait && errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case err != nil:
		return err
	}
	p.Data = b.buffer[:n]
	r.l.take(b, p, flags&unix.MSG_TRUNC != 0)
	return nil
}

// kernelDrops is not known: only Linux tells.
func kernelDrops(int) (uint32, bool) { return 0, false }

// setReceiveBuffer asks for n bytes and returns what is granted.
func setReceiveBuffer(fd, n int) (int, error) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n) // fails above the system's limit
	return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
}

func sharePort(int) error { return errors.ErrUnsupported }

func passCredentials(int) error { return errNoCredentials }

func peerPID(int) (int32, error) { return 0, errNoCredentials }
