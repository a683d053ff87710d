package dogstatsd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestUnixStream(t *testing.T) {
	l := open(t, UnixStream, ListenOptions{BufferSize: 64, Credentials: hasCredentials})
	out := start(t, l)
	info, err := os.Stat(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o722 {
		t.Errorf("socket mode %o, want 722", got)
	}
	pid := int32(os.Getpid())
	if !hasCredentials {
		pid = 0
	}
	conn := dial(t, l)
	// The vector of the reference, an empty frame, one as large as allowed.
	stream := "\x05\x00\x00\x00a:1|c" + frame(UnixStream, "") + frame(UnixStream, strings.Repeat("x", 64)) + frame(UnixStream, "b:1|c\nc:1|c\n")
	want := []arrived{{Data: "a:1|c"}, {Data: strings.Repeat("x", 64)}, {Data: "b:1|c\nc:1|c\n"}}
	for i := range want {
		want[i].PID, want[i].Transport = pid, UnixStream
	}
	if _, err := conn.Write([]byte(stream)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, receive(t, out, 3), byAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	check(t, l, Counts{Packets: 3, Bytes: 5 + 64 + 12, Connections: 1})
	for _, b := range []byte(stream) { // and byte by byte
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, receive(t, out, 3), byAddr); diff != "" {
		t.Errorf("byte by byte (-want +got):\n%s", diff)
	}
}

// More than one read takes.
func TestUnixStreamMuchAtOnce(t *testing.T) {
	l := open(t, UnixStream, ListenOptions{})
	out := start(t, l)
	const n = 5000
	var stream bytes.Buffer
	for i := range n {
		stream.WriteString(frame(UnixStream, fmt.Sprintf("%d:%s|c", i, strings.Repeat("1", i%300))))
	}
	conn, wrote := dial(t, l), make(chan error, 1)
	go func() {
		_, err := conn.Write(stream.Bytes())
		wrote <- err
	}()
	for i, p := range receive(t, out, n) {
		if want := fmt.Sprintf("%d:%s|c", i, strings.Repeat("1", i%300)); p.Data != want {
			t.Fatalf("frame %d: %q", i, p.Data)
		}
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// until waits for a count that a goroutine of the listener makes.
func until(t testing.TB, l *Listener, about string, done func(Counts) bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !done(l.Counts()); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: never; counts %+v", about, l.Counts())
		}
	}
}

func TestUnixStreamFramingErrors(t *testing.T) {
	for _, tt := range []struct {
		about, stream string
		hangUp        bool // the client closes, else the agent does
		want          Counts
	}{
		{"end between frames", frame(UnixStream, "a:1|c"), true, Counts{Packets: 1, Bytes: 5}},
		{"end in a header", frame(UnixStream, "a:1|c") + "\x05\x00", true, Counts{Packets: 1, Bytes: 5, FramesCutShort: 1}},
		{"end after a header", "\x05\x00\x00\x00", true, Counts{FramesCutShort: 1}},
		{"end in a frame", "\x05\x00\x00\x00a:1", true, Counts{FramesCutShort: 1}},
		{"one byte too long", frame(UnixStream, "a:1|c") + "\x41\x00\x00\x00" + strings.Repeat("x", 65), false, Counts{Packets: 1, Bytes: 5, FramesTooLong: 1}},
		{"4 GiB", "\xff\xff\xff\xffa:1|c", false, Counts{FramesTooLong: 1}},
		{"an HTTP request", "GET / HTTP/1.1\r\n\r\n", false, Counts{FramesTooLong: 1}},
	} {
		t.Run(tt.about, func(t *testing.T) {
			l := open(t, UnixStream, ListenOptions{BufferSize: 64})
			out := start(t, l)
			conn := dial(t, l)
			if _, err := conn.Write([]byte(tt.stream)); err != nil {
				t.Fatal(err)
			}
			receive(t, out, int(tt.want.Packets))
			if tt.hangUp {
				_ = conn.Close()
				until(t, l, "hang up", func(c Counts) bool { return c.Connections == 0 && c.FramesCutShort == tt.want.FramesCutShort })
			} else if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("the connection is not closed: %d, %v", n, err)
			}
			until(t, l, "close", func(c Counts) bool { return c.Connections == 0 })
			check(t, l, tt.want)
		})
	}
}

func TestUnixStreamConnectionsAreBounded(t *testing.T) {
	l := open(t, UnixStream, ListenOptions{MaxConnections: 2})
	out := start(t, l)
	first := dial(t, l)
	dial(t, l)
	until(t, l, "two connections", func(c Counts) bool { return c.Connections == 2 })
	if n, err := dial(t, l).Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the third connection is not closed: %d, %v", n, err)
	}
	check(t, l, Counts{Connections: 2, ConnectionsRefused: 1})
	_ = first.Close()
	until(t, l, "one left", func(c Counts) bool { return c.Connections == 1 })
	if _, err := dial(t, l).Write([]byte(frame(UnixStream, "a:1|c"))); err != nil {
		t.Fatal(err)
	}
	receive(t, out, 1)
}

// Connections that have begun a frame, and stopped, hold nothing that others need.
func TestUnixStreamSlowSendersAreHarmless(t *testing.T) {
	l := open(t, UnixStream, ListenOptions{QueueSize: 2 * batchSize})
	out := start(t, l)
	var slow []net.Conn
	const n = 50
	for i := range n {
		conn := dial(t, l)
		whole := frame(UnixStream, fmt.Sprintf("slow%d:1|c", i))
		if _, err := conn.Write([]byte(whole[:1+i%len(whole)])); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	quick := dial(t, l)
	for range 20 {
		if _, err := quick.Write([]byte(frame(UnixStream, "quick:1|c"))); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]int{"quick:1|c": 20}
	for i, conn := range slow {
		whole := frame(UnixStream, fmt.Sprintf("slow%d:1|c", i))
		want[whole[frameHeader:]]++
		if _, err := conn.Write([]byte(whole[1+i%len(whole):])); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]int{}
	for _, p := range receive(t, out, n+20) {
		got[p.Data]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnixStreamRefusesOtherFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dsd.socket")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenUnixStream(ListenOptions{Address: path}); err == nil || !strings.Contains(err.Error(), "DD_DOGSTATSD_STREAM_SOCKET") {
		t.Errorf("over a file: %v; want an error that names the mend", err)
	}
}

func TestIdleStreamConnectionIsCheap(t *testing.T) {
	l := open(t, UnixStream, ListenOptions{})
	start(t, l)
	const n = 300
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		dial(t, l)
	}
	until(t, l, "all connected", func(c Counts) bool { return c.Connections == n })
	runtime.GC()
	runtime.ReadMemStats(&after)
	// Both ends are in this process: their descriptors, and a goroutine each.
	each := (int64(after.HeapAlloc+after.StackInuse) - int64(before.HeapAlloc+before.StackInuse)) / n
	t.Logf("%d bytes for a connection and its client", each)
	if each > 16<<10 {
		t.Errorf("%d bytes for an idle connection", each)
	}
}

// FuzzFrames cuts a stream in pieces of any sizes: the frames must be those of
// the stream as a whole, and what is kept bounded.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x05\x00\x00\x00a:1|c\x00\x00\x00\x00\x02\x00\x00\x00x\n"), []byte{1, 3, 2})
	f.Add([]byte("\x05\x00\x00\x00a:1"), []byte{9})
	f.Add([]byte("\x40\x00\x00\x00"+strings.Repeat("x", 64)+"\x41\x00\x00\x00"), []byte{4, 64})
	f.Add([]byte("GET / HTTP/1.1"), []byte{0})
	const limit = 64
	f.Fuzz(func(t *testing.T, stream, sizes []byte) {
		var want [][]byte
		for rest := stream; ; {
			if len(rest) < 4 {
				break
			}
			n := binary.LittleEndian.Uint32(rest)
			if n > limit || int(n) > len(rest)-4 {
				break
			}
			want = append(want, rest[4:4+n])
			rest = rest[4+n:]
		}
		var got [][]byte
		var r remainder
		buffer := make([]byte, streamBuffer(limit))
		for i := 0; len(stream) > 0; i++ {
			n := len(stream)
			if i < len(sizes) {
				n = min(n, int(sizes[i]))
			} else if i > len(sizes) {
				n = min(n, 1+len(stream)/2)
			}
			have := copy(buffer, r.bytes)
			have += copy(buffer[have:], stream[:n])
			used := have - len(r.bytes)
			stream = stream[used:]
			rest := buffer[:have]
			var lines []byte
			var err error
			for err == nil {
				if lines, rest, err = cutFrame(rest, limit); err == nil {
					got = append(got, bytes.Clone(lines))
				}
			}
			if errors.Is(err, errFrameTooLong) {
				break
			}
			if r.set(rest); len(r.bytes) >= frameHeader+limit {
				t.Fatalf("%d bytes are kept of a frame of at most %d", len(r.bytes), limit)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-whole +pieces):\n%s", diff)
		}
	})
}
