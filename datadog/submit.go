package datadog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/klauspost/compress/zstd"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// Bounds of one body of the v2 series intake. Source: reference metrics-pipeline A4.6.
const (
	maxSeriesBytes      = 5_242_880 // before compression
	maxSeriesCompressed = 512_000
	maxSeriesPoints     = 10_000
)

// payloadVersion is the version of Datadog's payload definition that
// metric/payload follows.
const payloadVersion = "5.0.215"

// A SeriesBody is the body of one request to the series intake.
type SeriesBody struct {
	Data   []byte // a protobuf MetricPayload, compressed with zstd
	Points int
}

// A SeriesEncoder turns series into bodies. It may be used by one goroutine at a time.
type SeriesEncoder struct {
	zstd *zstd.Encoder
	raw  []byte // reused
}

// NewSeriesEncoder returns an encoder.
func NewSeriesEncoder() (*SeriesEncoder, error) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(256<<10))
	if err != nil {
		return nil, fmt.Errorf("new series encoder: %w", err)
	}
	return &SeriesEncoder{zstd: w}, nil
}

// Encode returns series, in their order, in bodies that keep the intake's
// bounds. dropped counts the points of series that exceed a bound alone.
func (e *SeriesEncoder) Encode(series []metric.Series) (bodies []SeriesBody, dropped int) {
	if len(series) == 0 {
		return nil, 0
	}
	points := 0
	for i := range series {
		points += len(series[i].Points)
	}
	if points <= maxSeriesPoints {
		if data := e.pack(series); data != nil {
			return []SeriesBody{{data, points}}, 0
		}
	}
	if len(series) == 1 {
		return nil, points
	}
	half := len(series) / 2
	first, lost := e.Encode(series[:half])
	second, more := e.Encode(series[half:])
	return append(first, second...), lost + more
}

// pack returns series as one body, or nil if they do not fit in one.
func (e *SeriesEncoder) pack(series []metric.Series) []byte {
	e.raw = payload.AppendV2(e.raw[:0], series)
	if len(e.raw) > maxSeriesBytes {
		return nil
	}
	if data := e.zstd.EncodeAll(e.raw, nil); len(data) <= maxSeriesCompressed {
		return data
	}
	return nil
}

// Submit sends one body to the series intake at the client's base URL, once. An
// answer other than success is an *APIError.
func (c *Client) Submit(ctx context.Context, body SeriesBody) error {
	if err := c.submit(ctx, body); err != nil {
		return fmt.Errorf("send series to %s: %w", c.shown, err)
	}
	return nil
}

func (c *Client) submit(ctx context.Context, body SeriesBody) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/api/v2/series", bytes.NewReader(body.Data))
	if err != nil {
		return fmt.Errorf("build request: %w", err)
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("DD-API-KEY", c.opts.APIKey)
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "zstd")
	req.Header.Set("DD-Agent-Payload", payloadVersion)
	resp, err := c.client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL is named once, without what people hide in it
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	const longest = 4096 // of an answer worth showing
	answer, err := io.ReadAll(io.LimitReader(resp.Body, longest))
	switch {
	case resp.StatusCode/100 == 2:
		return nil
	case resp.StatusCode/100 == 3:
		return &APIError{Status: resp.StatusCode, Messages: []string{redirect(resp.Header.Get("Location"))}}
	case err != nil:
		return fmt.Errorf("read answer: %w", err)
	}
	return &APIError{Status: resp.StatusCode, Messages: messages(answer), RetryAfter: retryAfter(resp.Header)}
}
