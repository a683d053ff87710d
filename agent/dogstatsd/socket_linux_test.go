package dogstatsd

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A sender that passes its files along must not fill this process' table.
func TestPassedFilesAreNotTaken(t *testing.T) {
	for _, transport := range []Transport{Unixgram, UnixStream} {
		for _, credentials := range []bool{true, false} {
			l := open(t, transport, ListenOptions{Credentials: credentials})
			out := start(t, l)
			conn := dial(t, l).(*net.UnixConn)
			if transport == UnixStream {
				until(t, l, "connected", func(c Counts) bool { return c.Connections == 1 })
			}
			before := openFiles(t)
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if err := control(raw, func(fd int) error {
					return unix.Sendmsg(fd, []byte(frame(transport, "a:1|c")), unix.UnixRights(0, 1, 2), nil, 0)
				}); err != nil {
					t.Fatal(err)
				}
				p := receive(t, out, 1)[0]
				if want := int32(os.Getpid()); credentials && p.PID != want || p.Data != "a:1|c" {
					t.Fatalf("%s: %+v", transport, p)
				}
			}
			if after := openFiles(t); after != before {
				t.Errorf("%s, credentials %t: %d files open, %d before", transport, credentials, after, before)
			}
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// threadTime binds the goroutine to its thread and returns the processor time
// that this has used.
func threadTime(b *testing.B) time.Duration {
	runtime.LockOSThread()
	b.Cleanup(runtime.UnlockOSThread)
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		b.Fatal(err)
	}
	return time.Duration(now.Nano())
}
