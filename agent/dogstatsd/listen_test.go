package dogstatsd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs l for the test's time and returns what it delivers.
func start(t testing.TB, l *Listener) <-chan *Batch {
	t.Helper()
	out, stop := run(l)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return out
}

// run runs l until stop, which takes what is still on its way.
func run(l *Listener) (out chan *Batch, stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	out, done := make(chan *Batch, 4), make(chan error, 1)
	go func() {
		err := l.Run(ctx, out)
		close(out)
		done <- err
	}()
	return out, func() error {
		cancel()
		for b := range out {
			b.Release()
		}
		return <-done
	}
}

func next(t testing.TB, out <-chan *Batch) *Batch {
	t.Helper()
	select {
	case b := <-out:
		return b
	case <-time.After(5 * time.Second):
		t.Fatal("nothing arrived")
		return nil
	}
}

// arrived is a Packet in words, for tables.
type arrived struct {
	Data      string
	PID       int32
	Addr      netip.Addr
	Transport Transport
}

// receive returns the next n packets.
func receive(t testing.TB, out <-chan *Batch, n int) []arrived {
	t.Helper()
	var got []arrived
	for len(got) < n {
		b := next(t, out)
		for _, p := range b.Packets {
			got = append(got, arrived{string(p.Data), p.PID, p.Addr, b.Transport})
		}
		b.Release()
	}
	return got
}

func send(t testing.TB, network, address string, datagrams ...string) {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, d := range datagrams {
		if _, err := conn.Write([]byte(d)); err != nil {
			t.Fatal(err)
		}
	}
}

// check compares the counts; what the kernel grants differs by machine.
func check(t testing.TB, l *Listener, want Counts) {
	t.Helper()
	got := l.Counts()
	got.ReceiveBuffer = 0
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

var byAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// open opens a listener of any transport at an address of its own.
func open(t testing.TB, transport Transport, o ListenOptions) (l *Listener) {
	t.Helper()
	var err error
	switch o.Address = filepath.Join(t.TempDir(), "dsd.socket"); transport {
	case UDP:
		o.Address = "127.0.0.1:0"
		l, err = OpenUDP(o)
	case Unixgram:
		l, err = OpenUnixgram(o)
	case UnixStream:
		l, err = OpenUnixStream(o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// dial connects to l for the test's time.
func dial(t testing.TB, l *Listener) net.Conn {
	t.Helper()
	conn, err := net.Dial(map[Transport]string{UDP: "udp", Unixgram: "unixgram", UnixStream: "unix"}[l.Transport()], l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// frame is data as it is written to a socket.
func frame(transport Transport, data string) string {
	if transport != UnixStream {
		return data
	}
	return string(binary.LittleEndian.AppendUint32(nil, uint32(len(data)))) + data
}

func TestUDP(t *testing.T) {
	l, err := OpenUDP(ListenOptions{Address: "127.0.0.1:0", BufferSize: 32})
	if err != nil {
		t.Fatal(err)
	}
	out := start(t, l)
	send(t, "udp", l.Addr(), "a:1|c\nb:2|c", "first:1|c\n"+strings.Repeat("x", 40)+":2|c", strings.Repeat("y", 40), "", strings.Repeat("z", 32))
	local := netip.MustParseAddr("127.0.0.1")
	want := []arrived{
		{Data: "a:1|c\nb:2|c"},
		// What follows the last whole line of a truncated datagram must not be read.
		{Data: "first:1|c\n"},
		{Data: ""},
		{Data: ""},
		{Data: strings.Repeat("z", 32)}, // just fits
	}
	for i := range want {
		want[i].Addr, want[i].Transport = local, UDP
	}
	if diff := cmp.Diff(want, receive(t, out, len(want)), byAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	check(t, l, Counts{Packets: 5, Bytes: 11 + 32 + 32 + 32, Truncated: 2})
}

func TestUDPOverIPv6(t *testing.T) {
	l, err := OpenUDP(ListenOptions{Address: "[::]:0"})
	if err != nil {
		t.Skip("this machine has no IPv6:", err)
	}
	out := start(t, l)
	port := l.Addr()[strings.LastIndexByte(l.Addr(), ':'):]
	// By either family, an IPv4 address is shown as one.
	for _, host := range []string{"127.0.0.1", "::1"} {
		send(t, "udp", "["+host+"]"+port, "a:1|c")
		got := receive(t, out, 1)[0]
		if got.Addr != netip.MustParseAddr(host) || got.Data != "a:1|c" {
			t.Errorf("from %s: %+v", host, got)
		}
	}
}

func TestEOLRequired(t *testing.T) {
	l, err := OpenUDP(ListenOptions{Address: "127.0.0.1:0", EOLRequired: true, BufferSize: 16})
	if err != nil {
		t.Fatal(err)
	}
	out := start(t, l)
	send(t, "udp", l.Addr(), "a:1|c\nb:2|c\n", "a:1|c\nb:2|", "a:1|c", "a:1|c\nbcdefghijk:2|c")
	var got []string
	for _, p := range receive(t, out, 4) {
		got = append(got, p.Data)
	}
	if diff := cmp.Diff([]string{"a:1|c\nb:2|c\n", "a:1|c\n", "", "a:1|c\n"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	check(t, l, Counts{Packets: 4, Bytes: 12 + 10 + 5 + 16, Unterminated: 2, Truncated: 1})
}

func TestUDPPortInUse(t *testing.T) {
	l, err := OpenUDP(ListenOptions{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if _, err := OpenUDP(ListenOptions{Address: l.Addr()}); err == nil || !strings.Contains(err.Error(), "DD_DOGSTATSD_PORT") {
		t.Errorf("second listener: %v; want an error that names the mend", err)
	}
}

func TestUDPEachDropIsCounted(t *testing.T) {
	for _, readers := range []int{1, 3} {
		l, err := OpenUDP(ListenOptions{Address: "127.0.0.1:0", ReceiveBuffer: 4096, Readers: readers})
		if err != nil {
			t.Fatal(err)
		}
		const senders, each = 10, 200
		for range senders { // nobody reads yet: the queues overflow
			send(t, "udp", l.Addr(), slices.Repeat([]string{"a:1|c"}, each)...)
		}
		dropped := l.Counts().KernelDrops
		if runtime.GOOS == "linux" && dropped == 0 {
			t.Errorf("%d readers: no drops are counted", readers)
		}
		out, stop := run(l)
		if runtime.GOOS == "linux" {
			receive(t, out, senders*each-int(dropped)) // and no more
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		c := l.Counts() // closed by now
		if runtime.GOOS == "linux" && (c.Packets+c.KernelDrops != senders*each || c.KernelDrops != dropped) {
			t.Errorf("%d readers: %d received and %d dropped of %d", readers, c.Packets, c.KernelDrops, senders*each)
		}
	}
}

func TestUDPReadersShareAPort(t *testing.T) {
	l, err := OpenUDP(ListenOptions{Address: "127.0.0.1:0", Readers: 4})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[bool]int{true: 4, false: 1}[sharesPorts]; len(l.sockets) != want {
		t.Fatalf("%d sockets, want %d", len(l.sockets), want)
	}
	// Sharing is between us: another agent must still find the port taken.
	if _, err := OpenUDP(ListenOptions{Address: l.Addr(), Readers: 4}); err == nil || !strings.Contains(err.Error(), "DD_DOGSTATSD_PORT") {
		t.Errorf("second listener: %v; want an error that names the mend", err)
	}
	out := start(t, l)
	const senders, each = 16, 50
	var sending sync.WaitGroup
	for s := range senders {
		sending.Go(func() {
			var lines []string
			for i := range each {
				lines = append(lines, fmt.Sprintf("s%d:%d|c", s, i))
			}
			send(t, "udp", l.Addr(), lines...)
		})
	}
	newest := map[string]int{}
	for _, p := range receive(t, out, senders*each) {
		var s, i int
		if _, err := fmt.Sscanf(p.Data, "s%d:%d|c", &s, &i); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint(s)
		if newest[name] != i {
			t.Fatalf("sender %d: datagram %d came when %d was next", s, i, newest[name])
		}
		newest[name]++
	}
	sending.Wait()
}

func TestReceiveBuffer(t *testing.T) {
	var log bytes.Buffer
	l, err := OpenUDP(ListenOptions{Address: "127.0.0.1:0", ReceiveBuffer: 65536, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if got := l.Counts().ReceiveBuffer; got != 65536 || log.Len() > 0 {
		t.Errorf("granted %d of 65536; log: %s", got, &log)
	}
	l.o.ReceiveBuffer = 1 << 30 // more than was granted
	l.tellReceiveBuffer()
	for _, want := range []string{"WARN", "wanted=1073741824", "granted=65536", "net.core.rmem_max"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log without %s: %s", want, &log)
		}
	}
}

// A stopping listener still delivers what senders got rid of before.
func TestStopDrains(t *testing.T) {
	for _, transport := range []Transport{UDP, Unixgram, UnixStream} {
		l := open(t, transport, ListenOptions{})
		const n = 8 // not more than a Unix datagram socket's queue holds
		lines := slices.Repeat([]string{"a:1|c\n"}, n)
		conn := dial(t, l)
		for _, line := range lines {
			if _, err := conn.Write([]byte(frame(transport, line))); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		out := make(chan *Batch, n)
		if transport != UnixStream { // where a connection has to be accepted first
			cancel()
		} else {
			time.AfterFunc(0, func() {
				for l.connections.Load() == 0 {
					runtime.Gosched()
				}
				cancel()
			})
		}
		if err := l.Run(ctx, out); err != nil {
			t.Errorf("%s: %v", transport, err)
		}
		cancel()
		close(out)
		got := 0
		for b := range out {
			got += len(b.Packets)
			b.Release()
		}
		if got != n {
			t.Errorf("%s: %d of %d packets were delivered", transport, got, n)
		}
	}
}

// When all batches are in flight, the reader waits and the kernel keeps the rest.
func TestBatchesAreBounded(t *testing.T) {
	l, err := OpenUDP(ListenOptions{Address: "127.0.0.1:0", QueueSize: 2 * batchSize})
	if err != nil {
		t.Fatal(err)
	}
	out := start(t, l)
	var held []*Batch
	for i := range 2 {
		send(t, "udp", l.Addr(), fmt.Sprint(i))
		held = append(held, next(t, out))
	}
	send(t, "udp", l.Addr(), "2", "3", "4")
	if n := len(out); n > 0 || l.Counts().Packets > 2 {
		t.Errorf("%d more batches, counts %+v, while both are held", n, l.Counts())
	}
	held[0].Release()
	held[1].Release()
	var got []string
	for _, p := range receive(t, out, 3) {
		got = append(got, p.Data)
	}
	if diff := cmp.Diff([]string{"2", "3", "4"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnixgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dsd.socket")
	stale, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	_ = stale.Close() // leaves its file behind
	l, err := OpenUnixgram(ListenOptions{Address: path, Credentials: hasCredentials})
	if err != nil {
		t.Fatal(err)
	}
	out := start(t, l)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o722 {
		t.Errorf("socket mode %o, want 722", got)
	}
	send(t, "unixgram", path, "a:1|c\nb:1|c\n", "c:1|c")
	pid := int32(os.Getpid())
	if !hasCredentials {
		pid = 0
	}
	want := []arrived{{Data: "a:1|c\nb:1|c\n", PID: pid, Transport: Unixgram}, {Data: "c:1|c", PID: pid, Transport: Unixgram}}
	if diff := cmp.Diff(want, receive(t, out, 2), byAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnixgramRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "dsd.socket")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenUnixgram(ListenOptions{Address: path}); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("over a file: %v", err)
	}
	if _, err := OpenUnixgram(ListenOptions{Address: dir}); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("over a directory: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
	if _, err := OpenUnixgram(ListenOptions{Address: filepath.Join(dir, "none", "dsd.socket")}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "writable") {
		t.Errorf("in no directory: %v", err)
	}
}
