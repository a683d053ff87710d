package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"kelpie.dev/kelpie/bench/figure"
	"kelpie.dev/kelpie/bench/process"
)

// A flood is how fast one program answers, and what for.
type flood struct {
	perSecond, perCPU float64 // reads a second, of time and of its processor's
	p50, p99          time.Duration
}

// floodReaders read at a time.
const floodReaders = 16

func (s *stage) throughput(ctx context.Context) error {
	c := newClient(s.k, s.agent.base, s.metrics, func(i int) string { return externalPath(namespaceOf(i), objectMetric(i), "") })
	var err error
	s.kelpieFlood, err = floodOf(ctx, s.run, "kelpie", s.agent.Process, c)
	return err
}

func floodOf(ctx context.Context, r *run, name string, p *process.Process, c *client) (f flood, err error) {
	figure.Progress("flood  %s", name)
	before, err := p.CPU()
	if err != nil {
		return f, err
	}
	got := c.flood(ctx, floodReaders, min(r.steady, 20*time.Second))
	after, err := p.CPU()
	if err != nil {
		return f, err
	}
	if got.failed > 0 {
		return f, fmt.Errorf("read from %s: %d of %d failed: %w", name, got.failed, got.failed+len(got.took), got.err)
	}
	n := float64(len(got.took))
	return flood{n / got.during.Seconds(), n / (after - before).Seconds(), quantile(got.took, 0.5), quantile(got.took, 0.99)}, nil
}

// peerOverTLS measures the sample adapter's own program, reading its three fixed
// external metrics, and puts Kelpie beside it.
func (r *run) peerOverTLS(ctx context.Context, bin string, k *kubernetesAPI) (err error) {
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	p, err := process.Start(ctx, process.Options{Dir: r.dir, CPU: testedCPU, Log: r.file("test-adapter.log"), Env: []string{"HOME=" + r.dir}, Args: []string{
		bin, "--secure-port=" + port, "--cert-dir=" + r.file("certificates"), "--lister-kubeconfig=" + k.kubeconfig,
		"--authentication-kubeconfig=" + k.kubeconfig, "--authorization-kubeconfig=" + k.kubeconfig,
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop(10*time.Second)) }()
	c := newClient(k, "https://127.0.0.1:"+port, 3, func(int) string { return externalPath("team-0", "my-external-metric", "foo=bar") })
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, err = c.read(ctx, 0); err == nil {
			break
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("start the sample adapter: %w\n%s", err, p.Tail())
		}
		time.Sleep(50 * time.Millisecond)
	}
	peer, err := floodOf(ctx, r, "sample adapter", p, c)
	if err != nil {
		return err
	}
	table := figure.Table{
		Title:  fmt.Sprintf("Reads over TLS of a real process, %d at a time", floodReaders),
		Header: []string{"", "reads/s", "reads/s of its processor time", "p50 ms", "p99 ms"},
		Notes:  []string{fmt.Sprintf("Kelpie: %d metrics whose values change. Sample adapter: one of its three. Who reads shares a core with kube-apiserver, etcd and the backend.", r.metrics)},
	}
	ours := r.kelpieFlood
	for _, row := range []struct {
		name string
		flood
	}{{"kelpie", ours}, {"sample adapter", peer}} {
		table.Add(row.name, fmt.Sprintf("%.0f", row.perSecond), fmt.Sprintf("%.0f", row.perCPU), fmt.Sprintf("%.2f", millis(row.p50)), fmt.Sprintf("%.2f", millis(row.p99)))
	}
	r.report.Compare("external_metric_reads_tls", "reads/s", figure.HigherIsBetter, ours.perSecond, figure.Value{Program: "sample adapter", Value: peer.perSecond})
	r.report.Compare("external_metric_reads_tls_cpu", "reads/s of processor time", figure.HigherIsBetter, ours.perCPU, figure.Value{Program: "sample adapter", Value: peer.perCPU})
	return table.WriteText(os.Stdout)
}
