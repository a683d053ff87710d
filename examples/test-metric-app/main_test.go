package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRequestsAreCounted runs the program against a socket in the agent's place.
func TestRequestsAreCounted(t *testing.T) {
	agent := listenUDP(t)
	host, port, err := net.SplitHostPort(agent.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DD_AGENT_HOST", host)
	t.Setenv("DD_DOGSTATSD_PORT", port)
	t.Setenv("DD_DOGSTATSD_URL", "")

	ctx, cancel := context.WithCancel(t.Context())
	addr := freeAddr(t)
	done := make(chan error, 1)
	go func() { done <- run(ctx, addr, discard()) }()

	const requests = 7
	for range requests {
		if got := get(t, "http://"+addr+"/any/path"); strings.TrimSpace(got) != "Hello!" {
			t.Fatalf("answer %q, want Hello!", got)
		}
	}
	cancel() // the stop sends what has been counted
	if err := <-done; err != nil {
		t.Fatalf("run: %v", err)
	}
	total, tags := readCounts(t, agent, requests)
	if total != requests {
		t.Errorf("counted %v requests, want %d", total, requests)
	}
	for _, want := range []string{"kube_namespace:test", "kube_deployment:test-metric-app"} {
		if !strings.Contains(","+tags+",", ","+want+",") {
			t.Errorf("tags %q lack %s", tags, want)
		}
	}
}

func TestAgentAddr(t *testing.T) {
	tests := []struct {
		env  map[string]string
		want string
	}{
		{nil, "localhost:8125"},
		{map[string]string{"DD_AGENT_HOST": ""}, "localhost:8125"},
		{map[string]string{"DD_AGENT_HOST": "10.0.0.1"}, ""},
		{map[string]string{"DD_DOGSTATSD_URL": "unix:///var/run/datadog/dsd.socket"}, ""},
	}
	for _, tt := range tests {
		got := agentAddr(func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok })
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("agentAddr(%v) (-want +got):\n%s", tt.env, diff)
		}
	}
}

type brokenCounter struct{}

func (brokenCounter) Incr(string, []string, float64) error {
	return errors.New("no agent")
}

func TestAnswersWithoutAgent(t *testing.T) {
	w := httptest.NewRecorder()
	handler(brokenCounter{}, discard()).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if w.Code != http.StatusOK || w.Body.String() != "Hello!\n" {
		t.Errorf("answer %d %q, want 200 Hello!", w.Code, w.Body)
	}
}

func TestPortInUse(t *testing.T) {
	addr := freeAddr(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := run(t.Context(), addr, discard()); err == nil || !strings.Contains(err.Error(), "-addr") {
		t.Errorf("run on a port in use: %v, want an error that names -addr", err)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func listenUDP(t *testing.T) net.PacketConn {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// get asks until the program listens.
func get(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true}
	client := http.Client{Transport: transport}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			if ctx.Err() != nil {
				t.Fatalf("the program does not answer: %v", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
}

// readCounts adds up the metric's datagram lines until want is reached.
func readCounts(t *testing.T, conn net.PacketConn, want float64) (total float64, tags string) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	for total < want {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			t.Fatalf("read datagrams after %v requests: %v", total, err)
		}
		for line := range strings.SplitSeq(string(buf[:n]), "\n") {
			rest, ok := strings.CutPrefix(line, metricName+":")
			if !ok {
				continue
			}
			fields := strings.Split(rest, "|")
			value, err := strconv.ParseFloat(fields[0], 64)
			if err != nil || len(fields) < 3 || fields[1] != "c" {
				t.Fatalf("datagram line %q is not a tagged counter", line)
			}
			total += value
			tags = strings.TrimPrefix(fields[2], "#")
		}
	}
	return total, tags
}
