package main

import (
	"context"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/labels"
)

// Both kinds of metrics are there, each with a value of its own, and nothing is
// read that is not.
func TestInProcessReadsAreReal(t *testing.T) {
	const n = 8
	p, err := newInProcess(n)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.source.Run(ctx) })
	g.Go(func() error { return p.objects.Run(ctx) })
	if err := p.wait(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		metric, sel, label := objectMetric(i), labels.Everything(), ""
		if i%2 == 1 {
			metric, sel, label = plainMetric, labels.SelectorFromSet(labels.Set{"app": nameOf(i)}), "app="+nameOf(i)
		}
		if err := p.read(ctx, i, metric, sel); err != nil {
			t.Errorf("metric %d: %v", i, err)
		}
		h, err := handler(nil, p.provider)
		if err != nil {
			t.Fatal(err)
		}
		if err := throughHandler(ctx, h, func(int) string { return externalPath(namespaceOf(i), metric, label) })(i); err != nil {
			t.Errorf("metric %d through the handler: %v", i, err)
		}
	}
	if err := p.read(ctx, 1, objectMetric(1), labels.Everything()); err == nil {
		t.Error("an object that does not exist was read")
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestThroughHandlerReportsFailures(t *testing.T) {
	read := throughHandler(t.Context(), http.NotFoundHandler(), func(int) string { return externalPath("a", "m", "") })
	if read(0) == nil {
		t.Error("404 was taken for a read")
	}
}

func TestQuantile(t *testing.T) {
	values := []int{5, 1, 4, 2, 3}
	for q, want := range map[float64]int{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v = %d, want %d", q, got, want)
		}
	}
	if got := quantile([]int(nil), 0.5); got != 0 {
		t.Errorf("quantile of nothing = %d", got)
	}
}
