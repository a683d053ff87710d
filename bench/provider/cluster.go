package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kelpie.dev/kelpie/bench/figure"
	"kelpie.dev/kelpie/bench/process"
	"kelpie.dev/kelpie/clusteragent/datadogmetric"
)

// syncPeriod is how often the HPA controller reads each metric.
const syncPeriod = 15 * time.Second

// A stage is the cluster agent under test and all around it.
type stage struct {
	*run
	k     *kubernetesAPI
	agent *clusterAgent
	feed  *feed
	table figure.Table

	empty, unused agentState
}

// cluster measures the real program with as many DatadogMetrics as
// HorizontalPodAutoscalers, against a real kube-apiserver and a real backend.
func (r *run) cluster(ctx context.Context) (err error) {
	agentBin, err := r.builder.Build(ctx, "kelpie-cluster-agent", r.builder.Kelpie, "./cmd/kelpie-cluster-agent")
	if err != nil {
		return err
	}
	backendBin, err := r.builder.Build(ctx, "kelpie-backend", r.builder.Kelpie, "./cmd/kelpie-backend")
	if err != nil {
		return err
	}
	sampleBin, err := r.builder.Build(ctx, "test-adapter", r.builder.Bench, "sigs.k8s.io/custom-metrics-apiserver/test-adapter")
	if err != nil {
		return err
	}
	if err := process.PinSelf(otherCPU); err != nil { // children have the same core
		return err
	}
	figure.Progress("start  kube-apiserver, etcd, the backend")
	k, err := r.startAPI(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.stop()) }()
	backend, url, err := r.startBackend(ctx, backendBin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Stop(30*time.Second)) }()
	s := &stage{run: r, k: k}
	if s.feed, err = newFeed(url, r.metrics); err != nil {
		return err
	}
	feedCtx, stopFeed := context.WithCancel(ctx)
	fed := make(chan error, 1)
	go func() { fed <- s.feed.run(feedCtx) }()
	defer func() { stopFeed(); err = errors.Join(err, <-fed) }()

	if s.agent, err = r.startAgent(ctx, agentBin, k, url); err != nil {
		return err
	}
	err = s.measure(ctx)
	err = errors.Join(err, s.agent.Stop(30*time.Second))
	if err != nil {
		return err
	}
	return r.peerOverTLS(ctx, sampleBin, k)
}

func (s *stage) measure(ctx context.Context) (err error) {
	s.table = figure.Table{
		Title:  fmt.Sprintf("The cluster agent with %d DatadogMetrics and %d HorizontalPodAutoscalers, one core", s.metrics, s.metrics),
		Header: []string{"", "cores", "RSS MiB", "live heap MiB", "status writes/s", "access reviews/s", "reads/s", "p50 ms", "p99 ms", "failed", "age p50 s", "p99 s"},
		Notes: []string{fmt.Sprintf("Reads: each metric once in %s, as the HPA controller does, over TLS as the API server forwards them; from when each was due.", syncPeriod),
			"Values are pushed by the real backend, a point a second each. A status' heartbeat is every 2 minutes, which alone is a write a second for 120 metrics."},
	}
	for _, step := range []func(context.Context) error{s.atRest, s.takeIntoUse, s.watchSteady, s.watchMoving, s.throughput} {
		if err = step(ctx); err != nil {
			break
		}
	}
	return errors.Join(err, s.table.WriteText(os.Stdout)) // what was measured until then
}

// atRest measures memory without objects, and with objects that nobody uses.
func (s *stage) atRest(ctx context.Context) (err error) {
	if s.empty, err = s.settled(ctx, "empty"); err != nil {
		return err
	}
	figure.Progress("create %d DatadogMetrics and HorizontalPodAutoscalers", s.metrics)
	start := time.Now()
	err = each(ctx, s.metrics, func(ctx context.Context, i int) error {
		if _, err := s.k.dynamic.Resource(datadogmetric.Resource).Namespace(namespaceOf(i)).Create(ctx, newObject(i), metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create DatadogMetric %d: %w", i, err)
		}
		if _, err := s.k.kube.AutoscalingV2().HorizontalPodAutoscalers(namespaceOf(i)).Create(ctx, newAutoscaler(i, "", nil), metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create HorizontalPodAutoscaler %d: %w", i, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	figure.Progress("       %.0f s", time.Since(start).Seconds())
	took, err := s.agent.wait(ctx, "the objects to be known", 10*time.Minute, func(a agentState) bool { return a.known >= s.metrics })
	if err != nil {
		return err
	}
	figure.Progress("       known %.1f s after the last was created", took.Seconds())
	took, err = s.agent.wait(ctx, "their statuses to be written", 10*time.Minute, func(a agentState) bool { return a.writes >= float64(s.metrics) })
	if err != nil {
		return err
	}
	s.report.Note("statuses of %d unused objects: all written %.1f s after the last was created", s.metrics, took.Seconds())
	s.unused, err = s.settled(ctx, "objects that nobody uses")
	return err
}

// settled waits for quiet and adds a row without load.
func (s *stage) settled(ctx context.Context, name string) (agentState, error) {
	select {
	case <-ctx.Done():
	case <-time.After(5 * time.Second):
	}
	if err := s.agent.collect(ctx); err != nil {
		return agentState{}, err
	}
	a, err := s.agent.state(ctx)
	if err != nil {
		return a, err
	}
	s.table.Add(name, "", fmt.Sprintf("%.0f", mib(a.rss)), fmt.Sprintf("%.1f", mib(a.live)))
	return a, s.keepProfile(ctx, "heap", name)
}

// takeIntoUse has every autoscaler refer to its metric.
func (s *stage) takeIntoUse(ctx context.Context) error {
	before, err := s.agent.state(ctx)
	if err != nil {
		return err
	}
	figure.Progress("refer  %d autoscalers to their metrics", s.metrics)
	start := time.Now()
	err = each(ctx, s.metrics, func(ctx context.Context, i int) error {
		hpas := s.k.kube.AutoscalingV2().HorizontalPodAutoscalers(namespaceOf(i))
		if _, err := hpas.Update(ctx, newAutoscaler(i, objectMetric(i), nil), metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("update HorizontalPodAutoscaler %d: %w", i, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	updated := time.Since(start)
	took, err := s.agent.wait(ctx, "the values", 10*time.Minute, func(a agentState) bool { return a.valid >= s.metrics })
	if err != nil {
		return err
	}
	s.report.Note("%d autoscalers took %.0f s to change; the last value was served at most %.1f s later", s.metrics, updated.Seconds(), took.Seconds())
	s.report.Limit("cluster_agent_values_after_use", "s", took.Seconds(), 1)
	took, err = s.agent.wait(ctx, "the statuses", 15*time.Minute, func(a agentState) bool { return a.writes-before.writes >= float64(s.metrics) })
	if err != nil {
		return err
	}
	s.report.Note("their statuses were written %.0f s after that", took.Seconds())
	return nil
}

func (s *stage) watchSteady(ctx context.Context) error {
	_, err := s.watch(ctx, "in use, values constant")
	return err
}

func (s *stage) watchMoving(ctx context.Context) error {
	s.feed.moving.Store(true)
	w, err := s.watch(ctx, "in use, values change each second")
	if err != nil {
		return err
	}
	s.report.Limit("cluster_agent_cpu_10k", "cores", w.cores, 1)
	s.report.Limit("cluster_agent_rss_10k", "MiB", mib(w.after.rss), mib(s.unused.rss)+100)
	s.report.Limit("cluster_agent_rss_10k_beyond_informers", "MiB", mib(w.after.rss-s.unused.rss), 100)
	s.report.Limit("cluster_agent_heap_10k_beyond_informers", "MiB", mib(w.after.live-s.unused.live), 100)
	s.report.Limit("external_metric_read_tls_p99_10k", "ms", millis(quantile(w.reads.took, 0.99)), 100)
	return nil
}

// A watch is what a while at the autoscalers' rate cost.
type watch struct {
	cores float64
	after agentState
	reads *readings
}

func (s *stage) watch(ctx context.Context, name string) (w watch, err error) {
	figure.Progress("watch  %s, for %s", name, s.steady)
	before, err := s.agent.state(ctx)
	if err != nil {
		return w, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.keepProfile(gctx, "profile", name) })
	c := newClient(s.k, s.agent.base, s.metrics, func(i int) string { return externalPath(namespaceOf(i), objectMetric(i), "") })
	w.reads = c.pace(ctx, syncPeriod, s.steady)
	if err := g.Wait(); err != nil {
		return w, err
	}
	if w.after, err = s.agent.state(ctx); err != nil {
		return w, err
	}
	if w.reads.failed > 0 {
		figure.Progress("       a read that failed: %v", w.reads.err)
	}
	seconds := w.after.at.Sub(before.at).Seconds()
	w.cores = (w.after.cpu - before.cpu).Seconds() / seconds
	if err := s.agent.collect(ctx); err != nil {
		return w, err
	}
	live, err := s.agent.state(ctx)
	if err != nil {
		return w, err
	}
	w.after.live = live.live
	s.table.Add(name, fmt.Sprintf("%.2f", w.cores), fmt.Sprintf("%.0f", mib(w.after.rss)), fmt.Sprintf("%.1f", mib(w.after.live)),
		fmt.Sprintf("%.0f", (w.after.kubeAPI.statusWrites-before.kubeAPI.statusWrites)/seconds),
		fmt.Sprintf("%.0f", (w.after.kubeAPI.reviews-before.kubeAPI.reviews)/seconds),
		fmt.Sprintf("%.0f", float64(len(w.reads.took))/w.reads.during.Seconds()), fmt.Sprintf("%.2f", millis(quantile(w.reads.took, 0.5))), fmt.Sprintf("%.2f", millis(quantile(w.reads.took, 0.99))),
		fmt.Sprintf("%d of %d", w.reads.failed, w.reads.failed+len(w.reads.took)),
		fmt.Sprintf("%.1f", quantile(w.reads.ages, 0.5).Seconds()), fmt.Sprintf("%.1f", quantile(w.reads.ages, 0.99).Seconds()))
	return w, s.keepProfile(ctx, "heap", name)
}

// keepProfile writes a profile when one is asked for.
func (s *stage) keepProfile(ctx context.Context, of, name string) error {
	if s.profile == "" {
		return nil
	}
	query := of
	if of == "profile" {
		query = fmt.Sprintf("profile?seconds=%d", int(s.steady.Seconds())-2)
	}
	return s.agent.profile(ctx, query, filepath.Join(s.profile, fmt.Sprintf("%d-%s.pprof", s.started, of+"-"+name)))
}

// each calls f for every i below n, sixteen at a time.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range n {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return f(ctx, i)
		})
	}
	return g.Wait()
}
