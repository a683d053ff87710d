package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"kelpie.dev/kelpie/bench/figure"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// The keys of the backend.
const (
	apiKey = "bench-api"
	appKey = "bench-app"
)

// A feed posts a point of every metric each second to the backend.
type feed struct {
	base   string
	series []metric.Series
	moving atomic.Bool // values change each second
	zw     *zstd.Encoder
}

func newFeed(base string, n int) (*feed, error) {
	zw, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, fmt.Errorf("make a zstd encoder: %w", err)
	}
	f := &feed{base: base, zw: zw, series: make([]metric.Series, n)}
	for i := range f.series {
		f.series[i] = metric.Series{
			Name: plainMetric, Host: fmt.Sprint("node-", i%100), Type: metric.Gauge, Interval: metric.FastInterval,
			Tags: metric.NewTags("kube_namespace:"+namespaceOf(i), "kube_deployment:"+nameOf(i)), Points: make([]metric.Point, 1),
		}
	}
	return f, nil
}

// run posts until ctx ends, and then returns nil.
func (f *feed) run(ctx context.Context) error {
	second := time.Now().Unix()
	for round := 0; ; round++ {
		second = max(second+1, time.Now().Unix())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(time.Unix(second, 0))):
		}
		if err := f.post(ctx, round, second); err != nil && ctx.Err() == nil {
			return err
		}
		if late := time.Since(time.Unix(second+1, 0)); late > time.Second {
			figure.Progress("late   by %s: the load is more than a second's", late)
		}
	}
}

func (f *feed) post(ctx context.Context, round int, at int64) error {
	if !f.moving.Load() {
		round = 0
	}
	const batch = 1000
	for first := 0; first < len(f.series); first += batch {
		part := f.series[first:min(first+batch, len(f.series))]
		for i := range part {
			part[i].Points[0] = metric.Point{Time: at, Value: float64((first+i)%100+1) * (1 + 0.01*float64(round%50))}
		}
		body := f.zw.EncodeAll(payload.AppendV2(nil, part), nil)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.base+"/api/v2/series", bytes.NewReader(body))
		if err != nil {
			return fmt.Errorf("post to the backend: %w", err)
		}
		req.Header = http.Header{"Dd-Api-Key": {apiKey}, "Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"zstd"}}
		if err := do(req); err != nil {
			return fmt.Errorf("post to the backend: %w", err)
		}
	}
	return nil
}

// do sends a request and reports an answer that is no success.
func do(req *http.Request) error {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	return nil
}
