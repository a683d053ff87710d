package load

import (
	"bytes"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var line = regexp.MustCompile(`^checkout\.http\.requests\.\d+:(1\|c|[\d.]+\|[ghd]|user-\d+\|s)\|#[^,|]+(,[^,|]+){4}$`)

func TestRecord(t *testing.T) {
	for _, s := range []Spec{
		{Contexts: 100, Packed: 1, MinSamples: 3000},
		{Contexts: 100, Packed: 10, MinSamples: 3000},
		{Contexts: 1000, Packed: 30, MinSamples: 3000},
		{Contexts: 1000, Packed: 30, MinSamples: 3000, CountersOnly: true},
	} {
		t.Run(s.String(), func(t *testing.T) {
			l, err := Record(s)
			if err != nil {
				t.Fatal(err)
			}
			contexts, types, counters := map[string]int{}, map[string]int{}, 0
			for i, d := range l.Datagrams {
				if n := Lines(d); n != s.Packed {
					t.Fatalf("datagram %d has %d lines, want %d:\n%s", i, n, s.Packed, d)
				}
				counters += Counters(d)
				for text := range strings.Lines(string(d)) {
					text = strings.TrimSuffix(text, "\n")
					if !line.MatchString(text) {
						t.Fatalf("line %q does not look as expected", text)
					}
					name, rest, _ := strings.Cut(text, ":")
					_, rest, _ = strings.Cut(rest, "|")
					kind, tags, _ := strings.Cut(rest, "|")
					contexts[name+tags]++
					types[kind]++
				}
			}
			if len(contexts) != s.Contexts {
				t.Errorf("%d contexts, want %d", len(contexts), s.Contexts)
			}
			for c, n := range contexts {
				if n != 3000/s.Contexts {
					t.Fatalf("context %s came %d times, want %d", c, n, 3000/s.Contexts)
				}
			}
			want := map[string]int{"c": 1800, "g": 600, "h": 300, "d": 150, "s": 150}
			if s.CountersOnly {
				want = map[string]int{"c": 3000}
			}
			for kind, n := range want {
				if types[kind] != n {
					t.Errorf("%d samples of type %s, want %d", types[kind], kind, n)
				}
			}
			if counters != want["c"] || l.Samples() != 3000 {
				t.Errorf("counted %d counters of %d samples, want %d of 3000", counters, l.Samples(), want["c"])
			}
		})
	}
}

func TestTheSameLoadTwice(t *testing.T) {
	s := Spec{Contexts: 100, Packed: 10, MinSamples: 1000}
	a, err := Record(s)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "load")
	if err := a.Write(path); err != nil {
		t.Fatal(err)
	}
	read, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Record(s)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]Load{"read back": read, "recorded again": again} {
		if !bytes.Equal(bytes.Join(a.Datagrams, []byte("§")), bytes.Join(b.Datagrams, []byte("§"))) {
			t.Errorf("%s, the load differs", name)
		}
	}
}

// TestSend holds that every datagram arrives unchanged and is counted, over a
// socket that loses none.
func TestSend(t *testing.T) {
	l, err := Record(Spec{Contexts: 100, Packed: 10, MinSamples: 1000})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const datagrams, first = 250, 90 // more than twice through the load
	got := make(chan [][]byte)
	go func() {
		var all [][]byte
		buffer := make([]byte, 8192)
		for range datagrams {
			n, err := conn.Read(buffer)
			if err != nil {
				break
			}
			all = append(all, bytes.Clone(buffer[:n]))
		}
		got <- all
	}()
	sent, err := Send(l, SendOptions{Network: "unixgram", Address: path, Rate: 1e6, Limit: datagrams, Start: first})
	if err != nil {
		t.Fatal(err)
	}
	received := <-got
	if sent.Datagrams != datagrams || sent.Samples != 10*datagrams || sent.Timeouts != 0 || sent.Next != (first+datagrams)%100 {
		t.Errorf("sent %+v, want %d datagrams of 10 samples", sent, datagrams)
	}
	counters := 0
	for i, d := range received {
		if want := l.Datagrams[(first+i)%100]; !bytes.Equal(d, want) {
			t.Fatalf("datagram %d is\n%s\nwant\n%s", i, d, want)
		}
		counters += Counters(d)
	}
	if counters != sent.Counters {
		t.Errorf("%d counters came, %d were counted as sent", counters, sent.Counters)
	}
}

func TestSendSaysWhatIsWrong(t *testing.T) {
	one := Load{[][]byte{[]byte("a:1|c")}}
	for _, test := range []struct {
		name string
		load Load
		o    SendOptions
		want string
	}{
		{"empty load", Load{}, SendOptions{Network: "udp", Address: "127.0.0.1:1"}, "no datagrams"},
		{"unknown network", one, SendOptions{Network: "tcp", Address: "127.0.0.1:1"}, "unknown network tcp"},
		{"no port", one, SendOptions{Network: "udp", Address: "127.0.0.1"}, "expected an IPv4 address and a port"},
		{"no socket", one, SendOptions{Network: "unixgram", Address: "/does/not/exist"}, "no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.o.Limit = 1
			if _, err := Send(test.load, test.o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one about %q", err, test.want)
			}
		})
	}
}
