package load

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SendOptions says where and how fast.
type SendOptions struct {
	Network string        // "udp" or "unixgram"
	Address string        // host:port, or the socket's path
	Rate    float64       // samples a second; 0 means as fast as it goes
	For     time.Duration // 0 means until Limit
	Limit   int           // datagrams at most; 0 means no limit
	Start   int           // index of the first datagram
}

// Sent is what a sender did. The JSON is what it tells its parent.
type Sent struct {
	Datagrams int     `json:"datagrams"`
	Samples   int     `json:"samples"`
	Counters  int     `json:"counters"` // samples that are counters
	Timeouts  int     `json:"timeouts"` // datagrams given up because a Unix socket took nothing for WriteTimeout
	Seconds   float64 `json:"seconds"`
	Next      int     `json:"next"` // index of the datagram that would have come next
}

// WriteTimeout is how long the official client waits for a Unix socket before
// it drops a datagram.
const WriteTimeout = 100 * time.Millisecond

// maxBurst is how much of its rate a sender makes up for when it was held up: a
// pause of its own is not to become a flood to the receiver.
const maxBurst = 2 * time.Millisecond

// maxBatch is how many datagrams go to the kernel in one call.
const maxBatch = 64

// Send sends l in a loop. It spins between sends: give it a core of its own.
func Send(l Load, o SendOptions) (Sent, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s, err := newSender(l, o)
	if err != nil {
		return Sent{}, err
	}
	defer func() { _ = unix.Close(s.fd) }()
	var sent Sent
	next := o.Start % len(l.Datagrams)
	start, missed := time.Now(), 0.0
	for {
		elapsed := time.Since(start)
		if o.For > 0 && elapsed >= o.For {
			break
		}
		batch := maxBatch
		if o.Rate > 0 {
			due := (o.Rate*elapsed.Seconds() - missed - float64(sent.Samples)) / s.perDatagram
			if due < 1 {
				continue
			}
			if late := due*s.perDatagram - o.Rate*maxBurst.Seconds(); late > 0 && due > maxBatch {
				missed += late
				due -= late / s.perDatagram
			}
			batch = min(batch, int(due))
		}
		if o.Limit > 0 {
			if batch = min(batch, o.Limit-sent.Datagrams-sent.Timeouts); batch == 0 {
				break
			}
		}
		batch = min(batch, len(l.Datagrams)-next)
		n, err := s.sendmmsg(next, batch)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			sent.Timeouts++
			next = (next + 1) % len(l.Datagrams)
			continue
		default:
			return sent, fmt.Errorf("send to %s %s after %d datagrams: %w", o.Network, o.Address, sent.Datagrams, err)
		}
		for i := next; i < next+n; i++ {
			sent.Samples += s.samples[i]
			sent.Counters += s.counters[i]
		}
		sent.Datagrams += n
		next = (next + n) % len(l.Datagrams)
	}
	sent.Seconds, sent.Next = time.Since(start).Seconds(), next
	return sent, nil
}

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

type sender struct {
	fd                int
	iovecs            []unix.Iovec
	headers           []mmsghdr
	samples, counters []int
	perDatagram       float64
}

func newSender(l Load, o SendOptions) (*sender, error) {
	if len(l.Datagrams) == 0 {
		return nil, errors.New("send: the load has no datagrams")
	}
	fd, err := dial(o.Network, o.Address)
	if err != nil {
		return nil, fmt.Errorf("send to %s %s: %w", o.Network, o.Address, err)
	}
	n := len(l.Datagrams)
	s := &sender{fd: fd, iovecs: make([]unix.Iovec, n), headers: make([]mmsghdr, n), samples: make([]int, n), counters: make([]int, n)}
	total := 0
	for i, d := range l.Datagrams {
		s.iovecs[i].Base = unsafe.SliceData(d)
		s.iovecs[i].SetLen(len(d))
		s.headers[i].hdr.Iov = &s.iovecs[i]
		s.headers[i].hdr.SetIovlen(1)
		s.samples[i], s.counters[i] = Lines(d), Counters(d)
		total += s.samples[i]
	}
	s.perDatagram = float64(total) / float64(n)
	return s, nil
}

// sendmmsg hands datagrams to the kernel and returns how many it took.
func (s *sender) sendmmsg(first, n int) (int, error) {
	sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.headers[first])), uintptr(n), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(sent), nil
}

// dial returns a blocking socket: it waits as a client does.
func dial(network, address string) (int, error) {
	family, to, err := sockaddr(network, address)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	timeout := unix.NsecToTimeval(WriteTimeout.Nanoseconds())
	if err := cmp.Or(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout),
		unix.Connect(fd, to),
	); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func sockaddr(network, address string) (family int, to unix.Sockaddr, err error) {
	switch network {
	case "unixgram":
		return unix.AF_UNIX, &unix.SockaddrUnix{Name: address}, nil
	case "udp":
		a, err := netip.ParseAddrPort(address)
		if err != nil || !a.Addr().Is4() {
			return 0, nil, fmt.Errorf("address %q: expected an IPv4 address and a port", address)
		}
		return unix.AF_INET, &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}, nil
	default:
		return 0, nil, net.UnknownNetworkError(network)
	}
}
