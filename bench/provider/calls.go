package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"kelpie.dev/kelpie/bench/figure"
	"kelpie.dev/kelpie/clusteragent/source"
)

// Upstream's arithmetic: so many queries a request, each so often.
const (
	upstreamBatch = 35
	period        = 30 * time.Second
	callsOf       = 1000 // queries
)

// calls counts the requests that 1000 queries of Datadog's API cost.
func (r *run) calls(ctx context.Context) error {
	var got float64
	if err := r.work(ctx, "calls", &got); err != nil {
		return err
	}
	upstream := float64((callsOf+upstreamBatch-1)/upstreamBatch) * float64(time.Minute/period)
	r.report.Compare("datadog_calls_per_minute_1000", "calls/min", figure.LowerIsBetter, got, figure.Value{Program: "upstream's arithmetic", Value: upstream})
	table := figure.Table{Title: fmt.Sprintf("Datadog's API: requests a minute for %d queries of one window, no rate limit", callsOf), Header: []string{"", "calls/min"},
		Notes: []string{"Counted over ten periods of a second each, and scaled to periods of 30 s. With rate limits: TestCallsAMinute."}}
	table.Add("kelpie", fmt.Sprintf("%.0f", got))
	table.Add("upstream's arithmetic", fmt.Sprintf("%.0f", upstream))
	return table.WriteText(os.Stdout)
}

// countCalls counts requests over ten short periods of the real poller.
func countCalls(ctx context.Context, _ int) (any, error) {
	const short, periods = time.Second, 10
	var asked atomic.Int64
	p, err := source.New(source.Options{Name: source.Datadog, Querier: queryAPI{asked: func() { asked.Add(1) }}, Period: short})
	if err != nil {
		return nil, err
	}
	for i := range callsOf {
		p.Use(fmt.Sprint(i), source.Key{Query: fmt.Sprintf("avg:bench.rps{app:%s}", nameOf(i)), Window: 5 * time.Minute})
	}
	ctx, cancel := context.WithTimeout(ctx, short/2+periods*short)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	time.Sleep(short / 2)
	first := asked.Load() // of new queries, once
	if err := <-done; err != nil {
		return nil, err
	}
	return float64(asked.Load()-first) / periods * float64(time.Minute/period), nil
}
