package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"kelpie.dev/kelpie/bench/process"
)

// A server is a running program that takes samples.
type server struct {
	*process.Process
	name    string
	base    string // URL
	path    string // of the intake
	header  http.Header
	metrics string // URL
	encoder func() (encoder, error)
}

// The keys of the backend under test.
const (
	apiKey = "bench-api"
	appKey = "bench-app"
)

// startKelpie starts the backend as users do, in an empty directory.
func (r *run) startKelpie(ctx context.Context) (*server, error) {
	listen, healthPort, err := twoPorts(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{
		name: "kelpie", base: "http://" + listen, path: "/api/v2/series", metrics: "http://127.0.0.1:" + healthPort + "/metrics",
		header:  http.Header{"Dd-Api-Key": {apiKey}, "Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"zstd"}},
		encoder: func() (encoder, error) { return newDatadogEncoder() },
	}
	s.Process, err = process.Start(ctx, process.Options{
		Args: []string{r.backendBin}, Dir: r.dir, CPU: testedCPU, Log: r.file("kelpie-backend.log"),
		Env: []string{
			"HOME=" + r.dir, "DD_API_KEY=" + apiKey, "DD_APP_KEY=" + appKey, "KELPIE_DATA_DIR=" + r.file("kelpie-data"),
			"KELPIE_LISTEN=" + listen, "KELPIE_OTLP_LISTEN=off", "DD_HEALTH_PORT=" + healthPort, "KELPIE_MAX_SERIES=2000000",
		},
	})
	if err != nil {
		return nil, err
	}
	return s, s.ready(ctx, "http://127.0.0.1:"+healthPort+"/ready")
}

// startPrometheus starts the peer of the intake.
func (r *run) startPrometheus(ctx context.Context) (*server, error) {
	listen, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{
		name: "prometheus", base: "http://" + listen, path: "/api/v1/write", metrics: "http://" + listen + "/metrics",
		header: http.Header{
			"Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"snappy"}, "X-Prometheus-Remote-Write-Version": {"0.1.0"},
		},
		encoder: func() (encoder, error) { return newWriteEncoder(), nil },
	}
	if s.Process, err = r.worker(ctx, "prometheus", peerTask{Dir: r.file("prometheus-data"), Addr: listen}, new(bytes.Buffer)); err != nil {
		return nil, err
	}
	return s, s.ready(ctx, s.metrics)
}

func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

func twoPorts(ctx context.Context) (listen, healthPort string, err error) {
	if listen, err = freePort(ctx); err != nil {
		return "", "", err
	}
	other, err := freePort(ctx)
	if err != nil {
		return "", "", err
	}
	_, healthPort, err = net.SplitHostPort(other)
	return listen, healthPort, err
}

// ready waits until url answers; a server that does not is ended.
func (s *server) ready(ctx context.Context, url string) error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := get(ctx, url)
		if err == nil {
			return nil
		}
		select {
		case <-s.Done():
			return s.Stop(0)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			_ = s.Stop(0)
			return fmt.Errorf("start %s: %w\n%s", s.name, err, s.Tail())
		}
	}
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	return answered(resp)
}

// answered reads a response to its end and reports one that is no success.
func answered(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	return nil
}

// appended is how many samples the TSDB in s has taken, by its own counter, which
// is the same in both programs.
func (s *server) appended(ctx context.Context) (n float64, err error) {
	err = process.Scrape(ctx, s.metrics, func(x process.Sample) {
		if x.Name == "prometheus_tsdb_head_samples_appended_total" {
			n += x.Value
		}
	})
	return n, err
}

// end stops s and removes what it has written.
func (r *run) end(s *server) error {
	err := s.Stop(30 * time.Second)
	return errors.Join(err, r.clear())
}

// clear removes the data of the servers that have ended.
func (r *run) clear() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return fmt.Errorf("clear the working directory: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := os.RemoveAll(r.dir + "/" + e.Name()); err != nil {
				return fmt.Errorf("clear the working directory: %w", err)
			}
		}
	}
	return nil
}
