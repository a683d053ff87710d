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
)

// A streamSocket accepts connections and reads frames from them.
type streamSocket struct {
	l        *Listener
	listener *net.UnixListener

	mu       sync.Mutex // guards what follows
	open     map[*net.UnixConn]struct{}
	stopping bool
	end      time.Time // when reading ends, once stopping
}

// OpenUnixStream binds a Unix stream socket at o.Address that every local user
// may connect to. A socket left behind by an earlier run is replaced; a file of
// another type is not touched.
func OpenUnixStream(o ListenOptions) (*Listener, error) {
	l := newListener(o, UnixStream)
	s := &streamSocket{l: l, open: map[*net.UnixConn]struct{}{}}
	err := openUnix(o.Address, "DD_DOGSTATSD_STREAM_SOCKET", func(addr *net.UnixAddr) (err error) {
		addr.Net = "unix"
		if s.listener, err = net.ListenUnix(addr.Net, addr); err == nil {
			// The path may by then be the next agent's, as in a rolling update.
			s.listener.SetUnlinkOnClose(false)
		}
		return err
	})
	if err == nil && o.Credentials && !hasCredentials {
		err = errNoCredentials
	}
	if err != nil {
		if s.listener != nil {
			_ = s.listener.Close()
		}
		return nil, err
	}
	l.stream = s
	return l, nil
}

// run accepts connections until ctx ends, and waits for all of them.
func (s *streamSocket) run(ctx context.Context, out chan<- *Batch) error {
	var connections sync.WaitGroup
	defer connections.Wait()
	defer s.stop() // also when accepting failed
	unwatch := context.AfterFunc(ctx, s.stop)
	defer unwatch()
	defer func() { _ = s.listener.Close() }()
	failures := 0
	for {
		conn, err := s.listener.AcceptUnix()
		if err == nil {
			failures = 0
			s.admit(conn, func(c *streamConn) { connections.Go(func() { s.serve(c, out) }) })
			continue
		}
		switch {
		case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on DogStatsD socket %s: %w", s.l.address, err)
		}
		s.l.readErrors.Add(1)
		if failures++; failures == maxFailures {
			return fmt.Errorf("accept on DogStatsD socket %s (%d failures in a row): %w", s.l.address, failures, err)
		}
		select { // most likely this process has too many files open
		case <-ctx.Done():
		case <-time.After(drainTime):
		}
	}
}

// stop ends the waiting of accept and of every connection.
func (s *streamSocket) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	s.stopping, s.end = true, time.Now().Add(drainTime)
	past := time.Unix(1, 0)
	_ = s.listener.SetDeadline(past)
	for conn := range s.open {
		_ = conn.SetReadDeadline(past)
	}
}

// admit hands conn to serve, or closes it when there are too many.
func (s *streamSocket) admit(conn *net.UnixConn, serve func(*streamConn)) {
	c := &streamConn{l: s.l, conn: conn}
	c.attempt = c.readOnce
	var err error
	if c.raw, err = conn.SyscallConn(); err == nil && s.l.o.Credentials {
		err = control(c.raw, func(fd int) (err error) {
			c.pid, err = peerPID(fd)
			return err
		})
	}
	if err != nil {
		s.l.readErrors.Add(1)
		_ = conn.Close()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= s.l.o.MaxConnections {
		s.l.refused.Add(1)
		_ = conn.Close()
		return
	}
	s.open[conn] = struct{}{}
	s.l.connections.Add(1)
	if s.stopping {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}
	serve(c)
}

// serve reads c until it ends, or s stops.
func (s *streamSocket) serve(c *streamConn, out chan<- *Batch) {
	defer func() {
		_ = c.conn.Close()
		s.mu.Lock()
		delete(s.open, c.conn)
		s.mu.Unlock()
		s.l.connections.Add(^uint64(0))
	}()
	if !c.frames(out, true, time.Time{}) {
		return
	}
	// s stops: what lies in the socket is still read.
	s.mu.Lock()
	end := s.end
	s.mu.Unlock()
	if c.conn.SetReadDeadline(time.Time{}) == nil {
		c.frames(out, false, end)
	}
}

// A streamConn is one connection of a streamSocket. While it waits for data it
// holds no batch, so that no number of slow senders keeps others waiting.
type streamConn struct {
	l         *Listener
	conn      *net.UnixConn
	raw       syscall.RawConn
	pid       int32
	remainder remainder
	first     [frameHeader]byte
	attempt   func(fd uintptr) bool // kept, so that reading does not allocate

	// Arguments and results of attempt.
	into []byte
	wait bool
	n    int
	err  error
}

// errEmpty says that a socket holds nothing now.
var errEmpty = errors.New("nothing to read")

// frames delivers frames until the connection ends or its deadline passes, which
// it reports; without wait only until the socket is empty or at end.
func (c *streamConn) frames(out chan<- *Batch, wait bool, end time.Time) (interrupted bool) {
	for wait || time.Now().Before(end) {
		n, err := c.read(c.first[:], wait)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return true
		case errors.Is(err, errEmpty):
			return false
		case err != nil:
			c.l.readErrors.Add(1)
			return false
		case n == 0: // the sender has closed it
			if len(c.remainder.bytes) > 0 {
				c.l.cutShort.Add(1)
			}
			return false
		}
		b := c.l.free.get()
		whole := c.fill(b, n)
		if len(b.Packets) > 0 {
			c.l.deliver(b, out)
		} else {
			b.Release()
		}
		if !whole {
			c.l.tooLong.Add(1)
			return false
		}
	}
	return false
}

// fill reads what the socket holds and puts the frames into b; the first n
// bytes are in c.first. It reports false when a frame is too long.
func (c *streamConn) fill(b *Batch, n int) bool {
	have := copy(b.buffer, c.remainder.bytes)
	have += copy(b.buffer[have:], c.first[:n])
	if n == len(c.first) { // else that was all
		if n, err := c.read(b.buffer[have:], false); err == nil {
			have += n // an error, or the end, comes again
		}
	}
	rest := b.buffer[:have]
	for {
		lines, after, err := cutFrame(rest, c.l.o.BufferSize)
		if err != nil {
			c.remainder.set(rest)
			return !errors.Is(err, errFrameTooLong)
		}
		rest = after
		if len(lines) > 0 {
			c.l.take(b, Packet{Data: lines, PID: c.pid}, false)
		}
	}
}

// read reads once into p: no bytes and no error mean the end of the stream.
// When the socket holds nothing, read waits or, without wait, gives errEmpty.
func (c *streamConn) read(p []byte, wait bool) (int, error) {
	c.into, c.wait = p, wait
	if err := c.raw.Read(c.attempt); err != nil {
		return 0, err
	}
	return c.n, c.err
}

// readOnce reports whether there is a result to return.
func (c *streamConn) readOnce(fd uintptr) bool {
	for {
		n, err := syscall.Read(int(fd), c.into)
		switch {
		case err == nil:
			c.n, c.err = n, nil
			return true
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			c.n, c.err = 0, errEmpty
			return !c.wait
		default:
			c.n, c.err = 0, os.NewSyscallError("read", err)
			return true
		}
	}
}
