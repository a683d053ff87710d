// Command reaction measures, on a cluster with Kelpie's chart and KEDA in reach,
// how long autoscalers take to see load and to act on it: Kelpie's value stream,
// Kelpie polled every 30 s, and KEDA's Datadog scaler at its fastest.
//
// make bench-reaction brings up a lab for it. It talks to the cluster by kubectl
// and helm, and to the node's agent by DogStatsD.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"kelpie.dev/kelpie/bench/figure"
)

// options are what the flags say.
type options struct {
	root     string // of the repository
	registry string // pods pull from it
	tag      string // of the kelpie image
	kedaTag  string // of KEDA's images
	apps     int    // autoscalers at once
	rounds   int    // loads of each
	load     int    // requests a second of each, once loaded
	only     string // names of systems, separated by commas; "" means all
}

func main() {
	var o options
	flag.StringVar(&o.root, "root", "..", "the repository's root")
	flag.StringVar(&o.registry, "registry", "", "where pods pull kelpie, keda and tlsproxy from")
	flag.StringVar(&o.tag, "tag", "", "of the kelpie image")
	flag.StringVar(&o.kedaTag, "keda-tag", "", "of the keda and tlsproxy images")
	flag.IntVar(&o.apps, "apps", 10, "autoscalers at once")
	flag.IntVar(&o.rounds, "rounds", 2, "loads of each autoscaler")
	flag.IntVar(&o.load, "load", 500, "requests a second of a loaded app; the target is 20")
	flag.StringVar(&o.only, "only", "", "measure these alone: kelpie,polling,keda")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "reaction:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	c := &cluster{options: o}
	fmt.Println("installing KEDA, and Kelpie as its front door")
	if err := c.install(ctx); err != nil {
		return err
	}
	sender, err := c.newSender(ctx)
	if err != nil {
		return err
	}
	defer sender.close()
	proxy, err := c.proxy(ctx)
	if err != nil {
		return err
	}
	defer proxy.close()
	var results []result
	for _, s := range systems {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), s.name) {
			continue
		}
		fmt.Printf("measuring: %s\n", s.title)
		r, err := c.measure(ctx, s, sender, proxy)
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
		results = append(results, r)
		fmt.Printf("  p95: value above target %s s, replicas wanted %s s, age of the value %s s\n",
			seconds(r.seen.quantile(0.95)), seconds(r.scaled.quantile(0.95)), seconds(r.age.quantile(0.95)))
	}
	if len(results) == 0 {
		return fmt.Errorf("-only %q names none of kelpie, polling, keda", o.only)
	}
	return report(results)
}

// report prints what was found; the first result is compared with the others.
func report(results []result) error {
	table := figure.Table{Title: "From the load's start, seconds: median, 95th percentile, largest",
		Header: []string{"", "value above target", "p95", "max", "replicas wanted", "p95", "max", "age of the value", "p95", "max"},
		Notes: []string{
			"The value above target: what the autoscaler would read now. Replicas wanted: the Deployment's spec.replicas.",
			"The age of the value: a gauge that says the time is read back as an autoscaler's metric.",
			"The controller's own period of 15 s is part of the second in all three.",
		}}
	for _, r := range results {
		row := []string{r.title}
		for _, d := range []durations{r.seen, r.scaled, r.age} {
			row = append(row, seconds(d.quantile(0.5)), seconds(d.quantile(0.95)), seconds(d.quantile(1)))
		}
		table.Add(row...)
	}
	if err := table.WriteText(os.Stdout); err != nil {
		return err // names itself
	}
	var figures []figure.Figure
	for _, f := range []struct {
		name string
		of   func(result) durations
	}{
		{"reaction_value", func(r result) durations { return r.seen }},
		{"scale_latency", func(r result) durations { return r.scaled }},
		{"value_age", func(r result) durations { return r.age }},
	} {
		for _, peer := range results[1:] {
			figures = append(figures, figure.Against(f.name+"_vs_"+peer.name, "s (p95)", figure.LowerIsBetter,
				f.of(results[0]).quantile(0.95).Seconds(), []figure.Value{{Program: peer.name, Value: f.of(peer).quantile(0.95).Seconds()}}))
		}
	}
	return figure.WriteJSON(os.Stdout, figures)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }
