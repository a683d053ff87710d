package query_test

import (
	"context"
	"errors"
	"fmt"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
	"kelpie.dev/kelpie/query/querytest"
)

func Example() {
	src := &querytest.Memory{}
	_ = src.Load(context.Background(), []metric.Series{{
		Name: "page.views", Host: "web-1", Tags: metric.NewTags("env:prod"),
		Type: metric.Rate, Interval: 10,
		Points: []metric.Point{{Time: 0, Value: 3}, {Time: 10, Value: 3}, {Time: 20, Value: 5}},
	}}, nil)
	e, err := query.Parse("sum:page.views{env:prod} by {host}.as_count().rollup(20)")
	if err != nil {
		fmt.Println(err)
		return
	}
	results, err := query.Eval(context.Background(), src, e, query.Window{From: 0, To: 30})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range results {
		fmt.Println(r.Tags, r.Points)
	}
	// Output: host:web-1 [{0 60} {20 50}]
}

func ExampleError() {
	_, err := query.Parse("avg:system.cpu.user{env:prod")
	var e *query.Error
	if errors.As(err, &e) {
		fmt.Println(e)
		fmt.Println(e.Caret())
	}
	// Output:
	// error at 28: expected "}"
	// avg:system.cpu.user{env:prod
	//                             ^
}
