package main

import (
	"fmt"
	"math"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/prompb"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// batchSize is the series of one request.
const batchSize = 1000

// A load is series that a cluster would send: each of a pod, with a host and five
// tags, evenly over deployments and metric names. Neighbours are of one
// deployment. The same load is always the same.
type load struct {
	Contexts    int
	Deployments int
	Names       int   // of metrics
	Interval    int64 // seconds between submissions
}

// name of metric i. It is one in PromQL too.
func (l load) name(i int) string { return fmt.Sprint("bench_requests_", i) }

// deployment of context i.
func (l load) deployment(i int) int { return i * l.Deployments / l.Contexts }

// series returns one series with one point a context.
func (l load) series() []metric.Series {
	all := make([]metric.Series, l.Contexts)
	for i := range all {
		d := l.deployment(i)
		all[i] = metric.Series{
			Name: l.name(i * l.Names / l.Contexts), Host: fmt.Sprint("node-", i%(l.Contexts/100+1)), Type: metric.Gauge, Interval: l.Interval,
			Tags: metric.NewTags("env:prod", fmt.Sprint("kube_namespace:team-", d%20), fmt.Sprint("kube_deployment:web-", d),
				fmt.Sprintf("pod_name:web-%d-%07x", d, i*40503%(1<<28)), fmt.Sprint("version:1.", d%7)),
			Points: make([]metric.Point, 1),
		}
	}
	return all
}

// setPoints gives each series its point of a round.
func setPoints(series []metric.Series, first, round int, at int64) {
	for i := range series {
		series[i].Points[0] = metric.Point{Time: at, Value: float64(((first+i)*31+round*17)%10_000) / 8}
	}
}

// fastInterval is that of metrics in the fast lane.
const fastInterval = metric.FastInterval

// An encoder writes bodies of one wire. It has one user at a time.
type encoder interface {
	encode(series []metric.Series) ([]byte, error)
}

// datadogEncoder writes protobuf of Datadog's v2 intake, zstd, as agents do.
type datadogEncoder struct {
	zw         *zstd.Encoder
	plain, out []byte
}

func newDatadogEncoder() (*datadogEncoder, error) {
	zw, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, fmt.Errorf("make a zstd encoder: %w", err)
	}
	return &datadogEncoder{zw: zw}, nil
}

func (e *datadogEncoder) encode(series []metric.Series) ([]byte, error) {
	e.plain = payload.AppendV2(e.plain[:0], series)
	e.out = e.zw.EncodeAll(e.plain, e.out[:0])
	return e.out, nil
}

// writeEncoder writes remote write v1, snappy, as Prometheus does: tags as labels.
type writeEncoder struct {
	labels     map[*metric.Point][]prompb.Label // by a series' point, which stays
	request    prompb.WriteRequest
	plain, out []byte
}

func newWriteEncoder() *writeEncoder {
	return &writeEncoder{labels: map[*metric.Point][]prompb.Label{}}
}

func (e *writeEncoder) encode(series []metric.Series) ([]byte, error) {
	e.request.Timeseries = e.request.Timeseries[:0]
	for i := range series {
		p := &series[i].Points[0]
		labels := e.labels[p]
		if labels == nil {
			labels = labelsOf(&series[i])
			e.labels[p] = labels
		}
		e.request.Timeseries = append(e.request.Timeseries, prompb.TimeSeries{Labels: labels, Samples: []prompb.Sample{{Timestamp: p.Time * 1000, Value: p.Value}}})
	}
	if n := e.request.Size(); n > cap(e.plain) {
		e.plain = make([]byte, n)
	}
	n, err := e.request.MarshalToSizedBuffer(e.plain[:e.request.Size()])
	if err != nil {
		return nil, fmt.Errorf("encode remote write: %w", err)
	}
	e.out = snappy.Encode(e.out[:cap(e.out)], e.plain[:n])
	return e.out, nil
}

// same reports whether two results of the same query are.
func same(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(b)) }
