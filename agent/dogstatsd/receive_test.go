package dogstatsd

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

const metricLine = "flask.request.rate:1|c|#kube_namespace:test,kube_deployment:test-metric-app,env:prod,service:web,version:1\n"

// Once its memory has grown, no datagram and no frame costs an allocation.
func TestReadingDoesNotAllocate(t *testing.T) {
	for _, transport := range []Transport{UDP, Unixgram, UnixStream} {
		l := open(t, transport, ListenOptions{Credentials: hasCredentials && transport == Unixgram})
		out := start(t, l)
		conn := dial(t, l)
		datagrams := make([][]byte, 8)
		for i := range datagrams {
			datagrams[i] = []byte(frame(transport, strings.Repeat(metricLine, 1+i)))
		}
		roundTrip := func() {
			for _, d := range datagrams {
				if _, err := conn.Write(d); err != nil {
					t.Fatal(err)
				}
			}
			for n := 0; n < len(datagrams); {
				b := <-out
				n += len(b.Packets)
				b.Release()
			}
		}
		for range 100 { // batches are made one by one, as they are needed
			roundTrip()
		}
		// A partial frame would be kept by a copy; these are written whole.
		if n := testing.AllocsPerRun(200, roundTrip); n >= 1 {
			t.Errorf("%s: %v allocations for %d packets, want 0", transport, n, len(datagrams))
		}
	}
}

// BenchmarkReceive reads datagrams while another thread sends as fast as it can
// one by one: an operation is one datagram received. Beside the time that
// passes, which is the sender's, it tells the reading thread's processor time.
func BenchmarkReceive(b *testing.B) {
	for _, transport := range []Transport{UDP, Unixgram} {
		for _, lines := range []int{1, 10, 30} {
			b.Run(fmt.Sprintf("%s/lines=%d", transport, lines), func(b *testing.B) {
				l := open(b, transport, ListenOptions{Credentials: hasCredentials && transport == Unixgram})
				defer func() { _ = l.Close() }()
				stop := sendForever(b, l, []byte(strings.Repeat(metricLine, lines)))
				defer stop()
				read(b, l, lines*len(metricLine))
			})
		}
	}
}

// read receives b.N datagrams.
func read(b *testing.B, l *Listener, size int) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	s, calls, n := l.sockets[0], 0, 0
	cpu := threadTime(b)
	for b.ResetTimer(); n < b.N; calls++ {
		batch := l.free.get()
		if err := s.receiver.receive(batch, true); err != nil {
			b.Fatal(err)
		}
		n += len(batch.Packets)
		batch.Release()
	}
	b.StopTimer()
	b.ReportMetric(float64(threadTime(b)-cpu)/float64(n), "cpu-ns/op")
	b.ReportMetric(float64(n)/float64(calls), "datagrams/call")
}

// BenchmarkReceiveFull reads a UDP socket whose queue has filled before: the
// cost of reading where it matters, when datagrams come faster than they are
// read. An operation is one datagram.
func BenchmarkReceiveFull(b *testing.B) {
	for _, lines := range []int{1, 10, 30} {
		b.Run(fmt.Sprintf("udp/lines=%d", lines), func(b *testing.B) {
			l := open(b, UDP, ListenOptions{})
			defer func() { _ = l.Close() }()
			conn := dial(b, l)
			datagram := []byte(strings.Repeat(metricLine, lines))
			b.SetBytes(int64(len(datagram)))
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; {
				b.StopTimer()
				for range 500 {
					if _, err := conn.Write(datagram); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				for {
					batch := l.free.get()
					if err := l.sockets[0].receiver.receive(batch, false); err != nil {
						b.Fatal(err)
					}
					got := len(batch.Packets)
					batch.Release()
					if n += got; got == 0 {
						break
					}
				}
			}
		})
	}
}

// sendForever sends datagram to l until stop.
func sendForever(b *testing.B, l *Listener, datagram []byte) (stop func()) {
	conn, done := dial(b, l), make(chan error)
	go func() {
		for {
			if _, err := conn.Write(datagram); err != nil {
				done <- err
				return
			}
		}
	}()
	return func() {
		_ = conn.SetWriteDeadline(time.Unix(1, 0))
		_ = conn.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) && !isTimeout(err) {
			b.Error(err)
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
