package backend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	vs "kelpie.dev/kelpie/valuestream"
)

// subscribe watches a query over HTTP/2 without TLS, as cluster agents do, until
// it has heard of it. closed closes the connection.
func subscribe(t *testing.T, url string) (conn *connect.BidiStreamForClient[vs.WatchRequest, vs.WatchResponse], closed func()) {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}
	conn = vs.NewValueStreamClient(&http.Client{Transport: transport}, url, connect.WithAcceptCompression("gzip", nil, nil)).Watch(t.Context())
	conn.RequestHeader().Set("DD-API-KEY", "ak")
	conn.RequestHeader().Set("DD-APPLICATION-KEY", "pk")
	if err := conn.Send(&vs.WatchRequest{Want: []*vs.Want{{Id: 1, Query: "avg:m{*}"}}}); err != nil {
		t.Fatal(err)
	}
	for {
		resp, err := conn.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetUpdates()) > 0 {
			return conn, transport.CloseIdleConnections
		}
	}
}

// TestShutdownDoesNotWaitForSubscribers ends a backend on which queries stand:
// one whose subscriber reads, and one whose subscriber does nothing.
func TestShutdownDoesNotWaitForSubscribers(t *testing.T) {
	b := start(t, t.TempDir(), nil)
	reading, closeReading := subscribe(t, b.url)
	defer closeReading()
	idle, closeIdle := subscribe(t, b.url)
	defer closeIdle()
	told := make(chan error, 1)
	go func() {
		for {
			if _, err := reading.Receive(); err != nil {
				told <- err
				return
			}
		}
	}()
	began := time.Now()
	if err := b.end(t); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the end took %s", took)
	}
	if err := <-told; connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("the subscriber was told %v, want unavailable", err)
	}
	if _, err := idle.Receive(); err == nil {
		t.Error("the idle subscriber still hears something")
	}
}

// TestShutdownDoesNotWaitForOneWhoNeverReads has a subscriber whose connection is
// full, so that what it is told last waits for it.
func TestShutdownDoesNotWaitForOneWhoNeverReads(t *testing.T) {
	b := start(t, t.TempDir(), nil)
	conn, closed := subscribe(t, b.url)
	defer closed()
	want := &vs.WatchRequest{}
	for i := range uint64(3000) {
		want.Want = append(want.Want, &vs.Want{Id: 10 + i, Query: fmt.Sprint("avg:", "m", i, "{*}")})
	}
	if err := conn.Send(want); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(scrape(t, b), "kelpie_stream_queries 3001\n"); {
		if time.Now().After(deadline) {
			t.Fatal("the queries do not stand")
		}
	}
	began := time.Now()
	if err := b.end(t); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the end took %s", took)
	}
	// It was full: not all fit, although all were pushed.
	got := 0
	for {
		resp, err := conn.Receive()
		if err != nil {
			break
		}
		got += len(resp.GetUpdates())
	}
	if got >= 3000 {
		t.Errorf("all of %d updates came: the test did not test anything", got)
	}
}
