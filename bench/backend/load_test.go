package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/prompb"

	"kelpie.dev/kelpie/metric/payload"
)

// TestWiresCarryTheSame holds that both programs are sent the same samples, and
// that no two contexts are one.
func TestWiresCarryTheSame(t *testing.T) {
	series := load{Contexts: 200, Deployments: 20, Names: 2, Interval: 10}.series()
	datadog, err := newDatadogEncoder()
	if err != nil {
		t.Fatal(err)
	}
	write := newWriteEncoder()
	for round := range 2 { // the second with what the encoders keep
		setPoints(series, 0, round, int64(1000+round))
		if diff := cmp.Diff(fromDatadog(t, encoded(t, datadog.encode, series)), fromWrite(t, encoded(t, write.encode, series))); diff != "" {
			t.Errorf("round %d: -datadog +remote write\n%s", round, diff)
		}
	}
}

func encoded[S any](t *testing.T, encode func(S) ([]byte, error), series S) []byte {
	t.Helper()
	body, err := encode(series)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// fromDatadog returns each context's point.
func fromDatadog(t *testing.T, body []byte) map[string]string {
	t.Helper()
	zr, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close()
	plain, err := zr.DecodeAll(body, nil)
	if err != nil {
		t.Fatal(err)
	}
	series, err := payload.DecodeV2(plain)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for i := range series {
		s := &series[i]
		var labels []string
		for _, l := range labelsOf(s) {
			labels = append(labels, l.Name+"="+l.Value)
		}
		out[strings.Join(labels, ",")] = fmt.Sprint(s.Points[0].Time*1000, s.Points[0].Value)
	}
	if len(out) != len(series) || len(out) == 0 {
		t.Errorf("%d contexts in %d series", len(out), len(series))
	}
	return out
}

func fromWrite(t *testing.T, body []byte) map[string]string {
	t.Helper()
	plain, err := snappy.Decode(nil, body)
	if err != nil {
		t.Fatal(err)
	}
	var request prompb.WriteRequest
	if err := request.Unmarshal(plain); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, s := range request.Timeseries {
		var labels []string
		for _, l := range s.Labels {
			labels = append(labels, l.Name+"="+l.Value)
		}
		out[strings.Join(labels, ",")] = fmt.Sprint(s.Samples[0].Timestamp, s.Samples[0].Value)
	}
	return out
}

func TestSelected(t *testing.T) {
	got, err := selected("intake, latency")
	if diff := cmp.Diff(map[string]bool{"intake": true, "latency": true}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := selected("intake,outtake"); err == nil || !strings.Contains(err.Error(), "outtake") {
		t.Errorf("a part that is not there: %v", err)
	}
}

func TestQuantile(t *testing.T) {
	var values []time.Duration
	for i := range 100 {
		values = append(values, time.Duration(100-i))
	}
	if p50, p99, most := quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1); p50 != 51 || p99 != 100 || most != 100 {
		t.Errorf("%d, %d, %d", p50, p99, most)
	}
}

// TestStandingIsEvaluated holds that what is measured as standing queries and what
// is measured as evaluating each are the same numbers.
func TestStandingIsEvaluated(t *testing.T) {
	task := standingTask{
		Load:   load{Contexts: 100, Deployments: 10, Names: 1, Interval: fastInterval},
		Narrow: 10, Wide: 5, Other: 20, Unread: 20, Rounds: 2, Steps: 3, Dir: t.TempDir(), Sample: 10,
	}
	stood, err := stand(task)
	if err != nil {
		t.Fatal(err)
	}
	each, err := evaluateEach(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	if len(each.Values) != 15 || stood.Changed < 15 {
		t.Errorf("%d values were asked for and %d changed, of 15", len(each.Values), stood.Changed)
	}
	if diff := cmp.Diff(each.Values, stood.Values); diff != "" {
		t.Errorf("-evaluated +standing\n%s", diff)
	}
}
