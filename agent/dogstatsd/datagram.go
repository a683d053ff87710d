package dogstatsd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// drainTime bounds how long a stopping listener reads on: a sender that
	// never stops must not hold the shutdown.
	drainTime = 100 * time.Millisecond
	// maxFailures is how many reads in a row may fail.
	maxFailures = 100
	// restTime is how long the reader of a UDP socket rests after a read that
	// emptied it, so that the next one brings many datagrams: a wake-up for each
	// costs as much as thirty lines. restBuffer is the socket's buffer from which
	// on what comes meanwhile is sure to find room: 2500 small datagrams.
	restTime   = 500 * time.Microsecond
	restBuffer = 1 << 20
)

// packetConn is what the two kinds of datagram socket have in common.
type packetConn interface {
	syscall.Conn
	SetReadDeadline(t time.Time) error
	Close() error
	LocalAddr() net.Addr
}

// A datagramSocket is one socket and its one reader.
type datagramSocket struct {
	conn     packetConn
	receiver *receiver
	drops    dropCount
}

// OpenUDP binds a UDP socket. Run closes it; Close does when there is no Run.
func OpenUDP(o ListenOptions) (*Listener, error) {
	addr, err := net.ResolveUDPAddr("udp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("resolve DogStatsD address %q: %w", o.Address, err)
	}
	if !sharesPorts {
		o.Readers = 1
	}
	l := newListener(o, UDP)
	// The first socket does not share its port, so that another agent on this
	// node is noticed. Once it has the port, it lets the others in.
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for DogStatsD on udp %s (is another agent running on this node? DD_DOGSTATSD_PORT chooses another port, 0 none): %w", o.Address, err)
	}
	l.address = conn.LocalAddr().String()
	if err := l.add(conn, l.o.Readers > 1); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return control(raw, sharePort) }}
	for range l.o.Readers - 1 {
		more, err := config.ListenPacket(context.Background(), "udp", l.address)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("share DogStatsD's udp %s between readers: %w", l.address, err), l.Close())
		}
		if err := l.add(more.(*net.UDPConn), false); err != nil {
			return nil, err
		}
	}
	l.rests = l.granted >= restBuffer
	l.tellReceiveBuffer()
	return l, nil
}

// OpenUnixgram binds a Unix datagram socket at o.Address that every local user
// may write to. A socket left behind by an earlier run is replaced; a file of
// another type is not touched.
//
// Its queue is short: the kernel holds net.unix.max_dgram_qlen datagrams, as
// that was in the agent's network namespace when the socket was made, and no
// option of the socket changes it.
func OpenUnixgram(o ListenOptions) (*Listener, error) {
	o.Readers = 1
	l := newListener(o, Unixgram)
	var conn *net.UnixConn
	err := openUnix(o.Address, "DD_DOGSTATSD_SOCKET", func(addr *net.UnixAddr) (err error) {
		addr.Net = "unixgram"
		conn, err = net.ListenUnixgram(addr.Net, addr)
		return err
	})
	if err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		return nil, err
	}
	return l, l.add(conn, false)
}

// add prepares conn and makes it one of l's sockets. It closes all of them when
// that fails.
func (l *Listener) add(conn packetConn, share bool) error {
	raw, err := conn.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) (err error) {
			switch l.transport {
			case UDP:
				l.granted, err = setReceiveBuffer(fd, l.wantedBuffer())
				if share {
					err = errors.Join(err, sharePort(fd))
				}
			case Unixgram:
				if l.o.Credentials {
					err = passCredentials(fd)
				}
			case UnixStream:
			}
			return err
		})
	}
	l.sockets = append(l.sockets, &datagramSocket{conn: conn, receiver: newReceiver(l, conn, raw)})
	if err != nil {
		return errors.Join(fmt.Errorf("set options of DogStatsD %s socket %s: %w", l.transport, l.o.Address, err), l.Close())
	}
	return nil
}

// control calls f with the file descriptor of raw.
func control(raw syscall.RawConn, f func(fd int) error) error {
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

func (l *Listener) wantedBuffer() int {
	if l.o.ReceiveBuffer > 0 {
		return l.o.ReceiveBuffer
	}
	return DefaultReceiveBuffer
}

// tellReceiveBuffer says when bursts will be lost that a larger buffer would
// have held.
func (l *Listener) tellReceiveBuffer() {
	if l.granted >= l.wantedBuffer() {
		return
	}
	log := l.o.Log.Info // nobody asked for the default
	if l.o.ReceiveBuffer > 0 {
		log = l.o.Log.Warn
	}
	log("the kernel gives DogStatsD's UDP socket a smaller receive buffer than wanted; it holds shorter bursts, and what it cannot hold is dropped and counted",
		"wanted", l.wantedBuffer(), "granted", l.granted,
		"mend", "set net.core.rmem_max on the node, or give the agent the capability NET_ADMIN")
}

func (l *Listener) runDatagrams(ctx context.Context, out chan<- *Batch) error {
	readers, ctx := errgroup.WithContext(ctx) // one that fails ends all
	for _, s := range l.sockets {
		readers.Go(func() error { return l.read(ctx, s, out) })
	}
	return readers.Wait()
}

// read is the one reader of s.
func (l *Listener) read(ctx context.Context, s *datagramSocket, out chan<- *Batch) error {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	defer func() {
		s.drops.read(s.conn) // the last that can be known
		_ = s.conn.Close()
	}()
	failures := 0
	for {
		b := l.free.get()
		err := s.receiver.receive(b, true)
		if err == nil {
			failures = 0
			emptied := len(b.Packets) < batchSize
			l.deliver(b, out)
			if emptied && l.rests {
				time.Sleep(restTime)
			}
			continue
		}
		b.Release()
		switch {
		case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
			return l.drain(s, out)
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("read DogStatsD socket %s: %w", l.address, err)
		}
		l.readErrors.Add(1)
		if failures++; failures == maxFailures {
			return fmt.Errorf("read DogStatsD socket %s (%d failures in a row): %w", l.address, failures, err)
		}
	}
}

// drain reads what lies in the socket's queue at the end.
func (l *Listener) drain(s *datagramSocket, out chan<- *Batch) error {
	end := time.Now().Add(drainTime)
	if err := s.conn.SetReadDeadline(end); err != nil {
		return fmt.Errorf("drain DogStatsD socket %s: %w", l.address, err)
	}
	for time.Now().Before(end) {
		b := l.free.get()
		err := s.receiver.receive(b, false)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			l.readErrors.Add(1)
		}
		if len(b.Packets) == 0 { // the queue is empty, or its time is over
			b.Release()
			break
		}
		l.deliver(b, out)
	}
	return nil
}

func closeAll(sockets []*datagramSocket) error {
	var errs []error
	for _, s := range sockets {
		errs = append(errs, s.conn.Close())
	}
	return errors.Join(errs...)
}

// A dropCount follows the kernel's count of datagrams that a socket had no room
// for, which has 32 bits and ends with the socket.
type dropCount struct {
	mu    sync.Mutex // guards what follows
	last  uint32
	total uint64
}

// read returns how many datagrams conn has dropped so far.
func (d *dropCount) read(conn packetConn) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	raw, err := conn.SyscallConn()
	if err != nil {
		return d.total
	}
	_ = control(raw, func(fd int) error { // fails once conn is closed
		if now, ok := kernelDrops(fd); ok {
			d.total += uint64(now - d.last)
			d.last = now
		}
		return nil
	})
	return d.total
}
