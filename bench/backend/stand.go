package main

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// warmUp is the seconds before those that are measured: every window is full.
const warmUp = 12

// all are the series that arrive each second: those that match, and the others.
func (t standingTask) all() []metric.Series {
	series := t.Load.series()
	series = append(series, strangers(t.Other, t.Load.name(0))...)
	return append(series, strangers(t.Unread, "bench_unread")...)
}

// strangers are series of a metric that are of none of the deployments.
func strangers(n int, name string) []metric.Series {
	series := load{Contexts: n, Deployments: max(1, n/10), Names: 1, Interval: fastInterval}.series()
	for i := range series {
		series[i].Name, series[i].Host = name, "stranger"
		series[i].Tags = append(metric.Tags{}, series[i].Tags...)
		for j, tag := range series[i].Tags {
			if len(tag) > 16 && tag[:16] == "kube_deployment:" {
				series[i].Tags[j] = "kube_deployment:other-" + tag[16:]
			}
		}
	}
	return series
}

// heap is the bytes in use once the collector has run.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// stand feeds standing queries with second after second.
func stand(t standingTask) (s stood, err error) {
	series := t.all()
	now := int64(lastPoint - warmUp - t.Rounds)
	empty := heap()
	standing := query.NewStanding(0)
	queries, err := t.add(standing, now)
	if err != nil {
		return s, err
	}
	withQueries := heap()
	s.PerQuery = (withQueries - empty) / float64(max(1, len(queries)))
	var observe, step, both []float64
	for n := range warmUp + t.Rounds {
		now++
		setPoints(series, 0, n, now)
		s.Changed = 0
		o, e, err := t.second(standing, series, now, &s.Changed)
		if err != nil {
			return s, err
		}
		if n < warmUp {
			if n == warmUp-1 && standing.Contexts() > 0 {
				s.PerContext = (heap() - withQueries) / float64(standing.Contexts())
			}
			continue
		}
		observe, step, both = append(observe, millis(o)), append(step, millis(e)), append(both, millis(o+e))
	}
	s.Observe, s.Step, s.Worst = quantile(observe, 0.5), quantile(step, 0.5), quantile(both, 1)
	s.Values = map[string]float64{}
	for _, q := range queries {
		a, ok := q.Last()
		if !ok || !a.OK || a.Err != nil {
			return s, fmt.Errorf("%s has no value: %v", q.Text, a.Err)
		}
		s.Values[q.Text] = a.Value
	}
	runtime.KeepAlive(series)
	return s, nil
}

// add adds t's queries; nothing is missing, as nothing has arrived yet.
func (t standingTask) add(standing *query.Standing, now int64) (queries []*query.StandingQuery, err error) {
	narrow, wide := t.texts()
	for _, text := range append(narrow, wide...) {
		q, missing, err := standing.Add(text, now)
		if err != nil {
			return nil, err
		}
		for _, m := range missing {
			standing.Fill(m, nil, nil, nil, now)
		}
		queries = append(queries, q)
	}
	return queries, nil
}

// numbered returns n numbers, one for each series from the first on.
func numbered(first, n int) []uint64 {
	numbers := make([]uint64, n)
	for i := range numbers {
		numbers[i] = uint64(first + i + 1)
	}
	return numbers
}

// second feeds one second's batch, in t.Steps parts with a step after each.
func (t standingTask) second(standing *query.Standing, series []metric.Series, now int64, changed *int) (observe, step time.Duration, err error) {
	parts := max(1, t.Steps)
	for i := range parts {
		part := series[i*len(series)/parts : (i+1)*len(series)/parts]
		numbers := numbered(i*len(series)/parts, len(part)) // as the store gives them
		o, err := spent(func() error {
			for first := 0; first < len(part); first += batchSize {
				end := min(first+batchSize, len(part))
				standing.Observe(part[first:end], numbers[first:end], now)
			}
			return nil
		})
		if err != nil {
			return 0, 0, err
		}
		e, err := spent(func() error {
			if ask := standing.Step(now, func(*query.StandingQuery) { *changed++ }); len(ask) > 0 {
				return errors.New("a query is to be asked of a source")
			}
			return nil
		})
		if err != nil {
			return 0, 0, err
		}
		observe, step = observe+o, step+e
	}
	return observe, step, nil
}
