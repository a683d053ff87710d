package store

import (
	"context"
	"testing"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query/querytest"
)

// loaded is a store whose clock stands at the newest point that it was given.
type loaded struct {
	*Store
	clock *fixed
}

func (l loaded) Load(ctx context.Context, series []metric.Series, distributions []metric.Distribution) error {
	for _, d := range distributions {
		for _, p := range d.Points {
			l.clock.sec = max(l.clock.sec, p.Time)
		}
	}
	for _, s := range series {
		for _, p := range s.Points {
			l.clock.sec = max(l.clock.sec, p.Time)
		}
	}
	if err := l.AppendDistributions(ctx, distributions); err != nil {
		return err
	}
	return l.Append(ctx, series)
}

// TestQueryScripts runs the query language's own scripts on the store.
func TestQueryScripts(t *testing.T) {
	querytest.Run(t, "../../query/testdata", querytest.Base, func(t *testing.T) querytest.Target {
		clock := &fixed{}
		return querytest.OnStore(loaded{open(t, Options{Now: clock.now, MinFree: -1}), clock})
	})
}

func BenchmarkAppend(b *testing.B) {
	clock := &fixed{t0}
	s, err := Open(Options{Dir: b.TempDir(), Now: clock.now, MinFree: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	batch := benchBatch(1000)
	b.ReportAllocs()
	for b.Loop() {
		clock.sec += 10
		for i := range batch {
			batch[i].Points[0].Time = clock.sec
		}
		if err := s.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(batch))/b.Elapsed().Seconds(), "samples/s")
}

func BenchmarkSelect(b *testing.B) {
	clock := &fixed{t0}
	s, err := Open(Options{Dir: b.TempDir(), Now: clock.now, MinFree: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	batch := benchBatch(10_000)
	for range 30 {
		clock.sec += 10
		for i := range batch {
			batch[i].Points[0].Time = clock.sec
		}
		if err := s.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	for _, scope := range []string{"kube_deployment:web-7", "*"} {
		sel := parseSelector(b, "bench.requests", scope)
		b.Run(scope, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Select(b.Context(), sel, clock.sec-300, clock.sec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
