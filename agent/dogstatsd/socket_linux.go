package dogstatsd

import (
	"encoding/binary"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchMessages is how many datagrams one system call reads.
	batchMessages = batchSize
	// sharesPorts says that several sockets can share a UDP port by sender,
	// hasCredentials that the kernel tells who writes to a Unix socket.
	sharesPorts    = true
	hasCredentials = true
)

// mmsghdr is the kernel's struct mmsghdr, which golang.org/x/sys does not have.
type mmsghdr struct {
	unix.Msghdr
	size uint32 // bytes received
}

// messages tell recvmmsg where in a batch the datagrams go. They are made once
// and renewed as far as they were used.
type messages struct {
	headers [batchMessages]mmsghdr
	vectors [batchMessages]unix.Iovec
	// names has the senders' addresses, which only UDP sockets have.
	names []unix.RawSockaddrInet6
	// control has the senders' credentials, controlSize bytes for each. There
	// is no room for anything else: a file descriptor that a sender passes
	// along is closed by the kernel, and not opened in this process.
	control     []byte
	controlSize int
}

func newMessages(buffer []byte, o ListenOptions, t Transport) *messages {
	m := &messages{}
	if t == UDP {
		m.names = make([]unix.RawSockaddrInet6, batchMessages)
	} else if o.Credentials {
		m.controlSize = unix.CmsgSpace(unix.SizeofUcred)
		m.control = make([]byte, batchMessages*m.controlSize)
	}
	for i := range m.headers {
		h, v := &m.headers[i], &m.vectors[i]
		v.Base = &buffer[i*o.BufferSize]
		v.SetLen(o.BufferSize)
		h.Iov = v
		h.SetIovlen(1)
		if m.names != nil {
			h.Name = (*byte)(unsafe.Pointer(&m.names[i]))
		}
		if m.control != nil {
			h.Control = &m.control[i*m.controlSize]
		}
		m.renew(i)
	}
	return m
}

// renew undoes what the kernel has written into a header.
func (m *messages) renew(i int) {
	h := &m.headers[i]
	if m.names != nil {
		h.Namelen = unix.SizeofSockaddrInet6
	}
	h.SetControllen(m.controlSize)
	h.Flags, h.size = 0, 0
}

// sender returns who sent the datagram i, as far as the kernel says.
func (m *messages) sender(i int) (pid int32, addr netip.Addr) {
	if m.names != nil {
		name := &m.names[i]
		switch name.Family {
		case unix.AF_INET:
			return 0, netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr)
		case unix.AF_INET6:
			return 0, netip.AddrFrom16(name.Addr).Unmap()
		}
		return 0, addr
	}
	if m.headers[i].Controllen < unix.SizeofCmsghdr {
		return 0, addr
	}
	hdr, data, _, err := unix.ParseOneSocketControlMessage(m.control[i*m.controlSize:][:m.controlSize])
	if err != nil || hdr.Level != unix.SOL_SOCKET || hdr.Type != unix.SCM_CREDENTIALS || len(data) < unix.SizeofUcred {
		return 0, addr
	}
	return int32(binary.NativeEndian.Uint32(data)), addr // struct ucred starts with the PID
}

// A receiver reads datagrams from one socket for one goroutine.
type receiver struct {
	l       *Listener
	raw     syscall.RawConn
	attempt func(fd uintptr) bool // kept, so that reading does not allocate

	// Arguments and results of attempt.
	messages *messages
	wait     bool
	n        int
	errno    syscall.Errno
}

func newReceiver(l *Listener, _ packetConn, raw syscall.RawConn) *receiver {
	r := &receiver{l: l, raw: raw}
	r.attempt = r.recvmmsg
	return r
}

// recvmmsg reads once and reports whether there is a result to return.
func (r *receiver) recvmmsg(fd uintptr) bool {
	for {
		n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&r.messages.headers[0])), batchMessages, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			r.n, r.errno = int(n), 0
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			r.n, r.errno = 0, 0
			return !r.wait
		default:
			r.n, r.errno = 0, errno
			return true
		}
	}
}

// receive fills the empty batch b with what the socket holds. When it holds
// nothing, receive waits or, if wait is false, leaves b empty.
func (r *receiver) receive(b *Batch, wait bool) error {
	r.messages, r.wait = b.messages, wait
	if err := r.raw.Read(r.attempt); err != nil {
		return err
	}
	if r.errno != 0 {
		return os.NewSyscallError("recvmmsg", r.errno)
	}
	for i := range r.n {
		h := &b.messages.headers[i]
		p := Packet{Data: b.buffer[i*r.l.o.BufferSize:][:h.size:h.size]}
		p.PID, p.Addr = b.messages.sender(i)
		r.l.take(b, p, h.Flags&unix.MSG_TRUNC != 0)
		b.messages.renew(i)
	}
	return nil
}

// kernelDrops returns the socket's sk_drops, which SO_MEMINFO has had since
// Linux 4.12. SO_RXQ_OVFL would tell the same number, but only along with the
// next datagram that is not dropped.
func kernelDrops(fd int) (uint32, bool) {
	const drops = 8 // SK_MEMINFO_DROPS of linux/sock_diag.h
	var info [drops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := syscall.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info[drops], errno == 0 && size == uint32(unsafe.Sizeof(info))
}

// setReceiveBuffer asks for n bytes and returns what is granted.
func setReceiveBuffer(fd, n int) (int, error) {
	granted := func() (int, error) {
		doubled, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF) // socket(7): for its own bookkeeping
		return doubled / 2, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n); err != nil {
		return 0, err
	}
	if got, err := granted(); err != nil || got >= n {
		return got, err
	}
	// Above net.core.rmem_max only with CAP_NET_ADMIN; without it, so be it.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, n)
	return granted()
}

// sharePort lets several sockets of this user have one port.
func sharePort(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// passCredentials asks for the sender's process with each datagram.
func passCredentials(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
}

// peerPID returns the process that connected to a stream socket.
func peerPID(fd int) (int32, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Pid, nil
}
