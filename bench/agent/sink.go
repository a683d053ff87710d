package main

import (
	"compress/gzip"
	"compress/zlib"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// A sink is the intake that Kelpie's agent sends to: it takes everything, and
// decodes it only when asked, so that it costs the sender's core little.
type sink struct {
	server *http.Server
	url    string

	mu     sync.Mutex // guards bodies
	bodies []body
}

type body struct {
	encoding string
	data     []byte
}

// maxBody bounds a request's body; Datadog's limit is 5 MB uncompressed.
const maxBody = 8 << 20

func openSink(ctx context.Context) (*sink, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the sink: %w", err)
	}
	s := &sink{url: "http://" + l.Addr().String()}
	s.server = &http.Server{Handler: http.HandlerFunc(s.take)}
	go func() { _ = s.server.Serve(l) }()
	return s, nil
}

func (s *sink) close() { _ = s.server.Close() }

func (s *sink) take(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	if r.URL.Path == "/api/v2/series" {
		s.mu.Lock()
		s.bodies = append(s.bodies, body{r.Header.Get("Content-Encoding"), data})
		s.mu.Unlock()
	}
	if r.Method == http.MethodGet {
		_, _ = io.WriteString(w, `{"valid":true}`)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, "{}")
}

// counters returns how many counter samples of the load have arrived: rates
// times their interval, as each sample counts by one. It forgets them.
func (s *sink) counters() (float64, error) {
	s.mu.Lock()
	bodies := s.bodies
	s.bodies = nil
	s.mu.Unlock()
	total := 0.0
	for _, b := range bodies {
		data, err := b.decompress()
		if err != nil {
			return 0, fmt.Errorf("read what the agent sent: %w", err)
		}
		series, err := payload.DecodeV2(data)
		if err != nil {
			return 0, fmt.Errorf("read what the agent sent: %w", err)
		}
		for i := range series {
			// A histogram's .count is a rate too; it is no counter of the load.
			if x := &series[i]; x.Type == metric.Rate && strings.HasPrefix(x.Name, "checkout.") && !strings.HasSuffix(x.Name, ".count") {
				for _, p := range x.Points {
					total += p.Value * float64(x.Interval)
				}
			}
		}
	}
	return total, nil
}

func (b body) decompress() ([]byte, error) {
	reader := strings.NewReader(string(b.data))
	switch b.encoding {
	case "zstd":
		d, err := zstd.NewReader(reader)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return io.ReadAll(d)
	case "deflate":
		d, err := zlib.NewReader(reader)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(d)
	case "gzip":
		d, err := gzip.NewReader(reader)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(d)
	case "", "identity":
		return b.data, nil
	default:
		return nil, fmt.Errorf("content encoding %q is not known here", b.encoding)
	}
}
