package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"kelpie.dev/kelpie/bench/process"
)

// A clusterAgent is the real program under test.
type clusterAgent struct {
	*process.Process
	base   string // of the external metrics API
	health string
	k      *kubernetesAPI
}

func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return port, l.Close()
}

// startBackend starts the backend beside everything else; its URL is returned.
func (r *run) startBackend(ctx context.Context, bin string) (*process.Process, string, error) {
	listen, err := freePort(ctx)
	if err != nil {
		return nil, "", err
	}
	health, err := freePort(ctx)
	if err != nil {
		return nil, "", err
	}
	p, err := process.Start(ctx, process.Options{Args: []string{bin}, Dir: r.dir, CPU: otherCPU, Log: r.file("backend.log"), Env: []string{
		"HOME=" + r.dir, "DD_API_KEY=" + apiKey, "DD_APP_KEY=" + appKey, "KELPIE_DATA_DIR=" + r.file("backend-data"),
		"KELPIE_LISTEN=127.0.0.1:" + listen, "KELPIE_OTLP_LISTEN=off", "DD_HEALTH_PORT=" + health,
	}})
	if err != nil {
		return nil, "", err
	}
	return p, "http://127.0.0.1:" + listen, await(ctx, p, "http://127.0.0.1:"+health+"/ready", 30*time.Second)
}

// startAgent starts the cluster agent as the chart does, with a kubeconfig in
// place of a pod's account.
func (r *run) startAgent(ctx context.Context, bin string, k *kubernetesAPI, backend string) (*clusterAgent, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	health, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	const emp = "DD_EXTERNAL_METRICS_PROVIDER_"
	a := &clusterAgent{base: "https://127.0.0.1:" + port, health: "http://127.0.0.1:" + health, k: k}
	a.Process, err = process.Start(ctx, process.Options{
		Args: []string{bin, "--kubeconfig", k.kubeconfig}, Dir: r.dir, CPU: testedCPU, Log: r.file("cluster-agent.log"),
		Env: []string{
			"HOME=" + r.dir, emp + "ENABLED=true", emp + "USE_DATADOGMETRIC_CRD=true", emp + "ENDPOINT=" + backend, emp + "PORT=" + port,
			"DD_API_KEY=" + apiKey, "DD_APP_KEY=" + appKey, "DD_POD_NAMESPACE=datadog", "DD_POD_NAME=bench", "DD_HEALTH_PORT=" + health,
			"KELPIE_SHUTDOWN_LINGER=0", emp + `CONFIG={"profiling":"true"}`, "DD_KUBE_STATE_METRICS_CORE_ENABLED=false",
		},
	})
	if err != nil {
		return nil, err
	}
	return a, await(ctx, a.Process, a.health+"/ready", 2*time.Minute)
}

// await waits until url answers; a program that does not let it is ended.
func await(ctx context.Context, p *process.Process, url string, patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("ask %s: %w", url, err)
		}
		if err = do(req); err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return p.Stop(0)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			_ = p.Stop(0)
			return fmt.Errorf("wait for %s: %w\n%s", url, err, p.Tail())
		}
	}
}

// What the cluster agent says of itself.
type agentState struct {
	rss, peak float64       // bytes
	live      float64       // bytes of the Go heap after the last collection
	cpu       time.Duration // so far
	valid     int           // DatadogMetrics that have a value
	known     int           // DatadogMetrics
	writes    float64       // of status, so far
	at        time.Time
	kubeAPI   requestCount
}

func (a *clusterAgent) state(ctx context.Context) (s agentState, err error) {
	s.at = time.Now()
	if s.cpu, err = a.CPU(); err != nil {
		return s, err
	}
	m, err := a.Memory()
	if err != nil {
		return s, err
	}
	s.rss, s.peak = float64(m.Now), float64(m.Peak)
	if s.kubeAPI, err = a.k.requests(ctx); err != nil {
		return s, err
	}
	var goal, percent float64
	err = process.Scrape(ctx, a.health+"/metrics", func(x process.Sample) {
		switch x.Name {
		case "go_memstats_next_gc_bytes":
			goal = x.Value
		case "go_gc_gogc_percent":
			percent = x.Value
		case "external_metrics_datadog_metrics":
			s.known++
			if strings.Contains(x.Labels, `valid="true"`) {
				s.valid++
			}
		case "kelpie_datadogmetric_status_writes_total":
			s.writes = x.Value
		}
	})
	s.live = goal / (1 + percent/100) // the goal is that much more than what lived
	return s, err
}

// wait polls the state until ok, and returns how long that took.
func (a *clusterAgent) wait(ctx context.Context, what string, patience time.Duration, ok func(agentState) bool) (time.Duration, error) {
	for start := time.Now(); ; {
		s, err := a.state(ctx)
		if err != nil {
			return 0, err
		}
		if ok(s) {
			return time.Since(start), nil
		}
		if time.Since(start) > patience {
			return 0, fmt.Errorf("wait for %s: not within %s: %d objects known, %d valid, %.0f statuses written", what, patience, s.known, s.valid, s.writes)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-a.Done():
			return 0, a.Stop(0)
		case <-time.After(time.Second): // a scrape is work for it too
		}
	}
}

// collect has the garbage collected, so that what lives can be told.
func (a *clusterAgent) collect(ctx context.Context) error {
	return a.profile(ctx, "heap?gc=1", os.DevNull)
}

// profile writes one of net/http/pprof's profiles to a file.
func (a *clusterAgent) profile(ctx context.Context, of, file string) error {
	config := rest.CopyConfig(a.k.config)
	config.TLSClientConfig.CAData, config.TLSClientConfig.Insecure = nil, true // it is not kube-apiserver's authority that signed it
	transport, err := rest.TLSConfigFor(config)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: cloneTLS(transport)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+"/debug/pprof/"+of, nil)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s", resp.Status)
	}
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if _, err := io.Copy(out, resp.Body); err != nil {
		_ = out.Close()
		return fmt.Errorf("profile: %w", err)
	}
	return out.Close()
}

func cloneTLS(c *tls.Config) *tls.Config {
	if c == nil {
		return &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return c.Clone()
}
