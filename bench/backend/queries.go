package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/bench/figure"
)

// storeTask is to fill a store in Dir with Rounds points a context, Load.Interval
// apart, the last at End.
type storeTask struct {
	Dir    string
	Load   load
	Rounds int
	End    int64
}

// begin is the time of the first point.
func (t storeTask) begin() int64 { return t.End - int64(t.Rounds-1)*t.Load.Interval }

func (t storeTask) open(now func() time.Time) (*store.Store, error) {
	return store.Open(store.Options{Dir: t.Dir, MinFree: -1, MaxSelectPoints: 100_000_000, Now: now})
}

// fill writes the store by Kelpie's own code and closes it.
func fill(ctx context.Context, t storeTask) (any, error) {
	now := t.begin()
	st, err := t.open(func() time.Time { return time.Unix(now, 0) })
	if err != nil {
		return nil, err
	}
	series := t.Load.series()
	for n := 0; n < t.Rounds && err == nil; n++ {
		now = t.begin() + int64(n)*t.Load.Interval
		setPoints(series, 0, n, now)
		for first := 0; first < len(series) && err == nil; first += batchSize {
			err = st.Append(ctx, series[first:min(first+batchSize, len(series))])
		}
	}
	if closed := st.Close(); err == nil {
		err = closed
	}
	return t.Rounds, err
}

// A question is the same in both languages.
type question struct {
	Name    string
	Kelpie  string
	PromQL  string // the same number
	Sampled string // PromQL that costs less and says less: the newest point of each bucket; "" for none
}

// queryTask is to ask Questions of the store in Store.Dir, Hot times after the
// first, each time with a window 10 s later.
type queryTask struct {
	Store     storeTask
	Questions []question
	Range     bool // over the hour before, else at an instant
	Sampled   bool // as PromQL: the cheaper form
	Cached    bool // as Kelpie: with a cache of what was shown
	Hot       int
}

// The window and its buckets, in seconds, and how far it moves.
const (
	window = 3600
	bucket = 20 // what a graph of an hour has
	move   = 10
)

// from is where the first window begins; its last point is followed by those that
// the window moves on to. It is aligned to a bucket.
func (t queryTask) from() int64 { return t.Store.End - window - int64(t.Hot)*move + move }

// timing is what one question took of the processor, the collector's part
// included, and what was answered at first.
type timing struct {
	Cold   float64 // ms, of the first time
	Hot    float64 // ms, median of the others
	Sum    float64 // of all points of the first answer
	Points int
}

// timeEach asks question by question; ask returns the sum and the number of the
// points of the n-th window's answer.
func (t queryTask) timeEach(ask func(q question, n int) (float64, int, error)) (map[string]timing, error) {
	out := map[string]timing{}
	for _, q := range t.Questions {
		var found timing
		var hot []time.Duration
		for n := 0; n <= t.Hot; n++ {
			var sum float64
			var points int
			took, err := spent(func() (err error) {
				sum, points, err = ask(q, n)
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", q.Name, err)
			}
			if n == 0 {
				found.Cold, found.Sum, found.Points = millis(took), sum, points
			} else {
				hot = append(hot, took)
			}
		}
		found.Hot = millis(quantile(hot, 0.5))
		out[q.Name] = found
	}
	return out, nil
}

// rangeQueries compares an hour of 10 000 series.
func (r *run) rangeQueries(ctx context.Context) error {
	hot := pick(r, 10, 2)
	contexts := pick(r, 10_000, 1000)
	const metric = "bench_requests_0"
	return r.queries(ctx, queryTask{
		// More points than the hour, for the windows to move over.
		Store: storeTask{Load: load{Contexts: contexts, Deployments: 100, Names: 1, Interval: 10}, Rounds: (window + hot*move) / 10},
		Questions: []question{
			{"range_query_avg_by", "avg:" + metric + "{*} by {kube_deployment}", "avg by (kube_deployment) (avg_over_time(" + metric + "[20s]))", "avg by (kube_deployment) (" + metric + ")"},
			{"range_query_sum", "sum:" + metric + "{*}", "sum(avg_over_time(" + metric + "[20s]))", "sum(" + metric + ")"},
		},
		Range: true, Hot: hot,
	})
}

// instantQuery compares one number of 100 000 series.
func (r *run) instantQuery(ctx context.Context) error {
	const metric = "bench_requests_0"
	hot := pick(r, 10, 2)
	return r.queries(ctx, queryTask{
		Store:     storeTask{Load: load{Contexts: pick(r, 100_000, 10_000), Deployments: 1000, Names: 1, Interval: 10}, Rounds: 30 + hot},
		Questions: []question{{"instant_query", "avg:" + metric + "{*}", "avg(" + metric + ")", ""}},
		Hot:       hot,
	})
}

// queries has both engines answer the same questions over the same database, one
// after the other, each in a process of its own on one core. That the answers are
// not the same is an error.
func (r *run) queries(ctx context.Context, t queryTask) error {
	t.Store.Dir, t.Store.End = r.file("store"), lastPoint
	defer func() { _ = r.clear() }()
	var filled int
	if err := r.work(ctx, "fill", t.Store, &filled); err != nil {
		return err
	}
	var kelpie, cached, equal, sampled map[string]timing
	if err := r.work(ctx, "query-kelpie", t, &kelpie); err != nil {
		return err
	}
	if err := r.work(ctx, "query-promql", t, &equal); err != nil {
		return err
	}
	if t.Cached = t.Range; t.Cached {
		if err := r.work(ctx, "query-kelpie", t, &cached); err != nil {
			return err
		}
	}
	if t.Sampled = t.Range; t.Sampled {
		if err := r.work(ctx, "query-promql", t, &sampled); err != nil {
			return err
		}
	}
	table := figure.Table{
		Title:  fmt.Sprintf("Queries over %d series, ms of processor time: the first time, and the median of %d with the window moved by %d s", t.Store.Load.Contexts, t.Hot, move),
		Header: []string{"", "kelpie", "moved", "with its cache", "PromQL, same number", "moved", "PromQL, newest point", "moved"},
		Notes:  []string{fmt.Sprintf("One database of %d points a series in the head, read by one engine after the other.", t.Store.Rounds)},
	}
	for _, q := range t.Questions {
		k, c, p, s := kelpie[q.Name], cached[q.Name], equal[q.Name], sampled[q.Name]
		if c.Hot > 0 && (c.Points != k.Points || !same(c.Sum, k.Sum)) {
			return fmt.Errorf("%s: Kelpie answered %d points, in all %v, and with its cache %d, in all %v", q.Name, k.Points, k.Sum, c.Points, c.Sum)
		}
		if k.Points == 0 || k.Points != p.Points || !same(k.Sum, p.Sum) {
			return fmt.Errorf("%s: Kelpie answered %d points, in all %v, and PromQL %d, in all %v", q.Name, k.Points, k.Sum, p.Points, p.Sum)
		}
		table.Add(q.Name, ms(k.Cold), ms(k.Hot), ms(c.Hot), ms(p.Cold), ms(p.Hot), ms(s.Cold), ms(s.Hot))
		r.report.Compare(q.Name, "ms", figure.LowerIsBetter, k.Hot, figure.Value{Program: "promql", Value: p.Hot})
		r.report.Compare(q.Name+"_first", "ms", figure.LowerIsBetter, k.Cold, figure.Value{Program: "promql", Value: p.Cold})
		if c.Hot > 0 {
			r.report.Compare(q.Name+"_cached", "ms", figure.LowerIsBetter, c.Hot, figure.Value{Program: "promql", Value: p.Hot}, figure.Value{Program: "kelpie without a cache", Value: k.Hot})
		}
		if s.Hot > 0 {
			r.report.Compare(q.Name+"_sampled", "ms", figure.LowerIsBetter, k.Hot, figure.Value{Program: "promql of the newest point", Value: s.Hot})
		}
	}
	return table.WriteText(os.Stdout)
}

// lastPoint is the time of the last point of a store that is asked.
const lastPoint = 1_700_000_010

func ms(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.3g", v)
}

// tsdb is where the store in t keeps its database.
func (t storeTask) tsdb() string { return filepath.Join(t.Dir, "tsdb") }
