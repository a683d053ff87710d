package walkthrough

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const clusterAgentReady = `kubectl rollout status -n datadog deploy/datadog-cluster-agent --timeout=120s`

// clusterAgentStopped: nobody answers autoscalers, and doctor says who should.
func clusterAgentStopped(ctx context.Context, r *Run) error {
	return r.prove(ctx, fault{
		breakIt: `kubectl scale -n datadog deploy/datadog-cluster-agent --replicas=0
kubectl wait -n datadog pod -l app=datadog-cluster-agent --for=delete --timeout=60s`,
		mend: `kubectl scale -n datadog deploy/datadog-cluster-agent --replicas=1
` + clusterAgentReady,
		hpa:    []string{"unable to"},
		doctor: []string{"datadog-cluster-agent", "mend:"},
	})
}

// certificateReplaced: a hand puts junk into the Secret, and then takes it away.
// Neither needs a restart, and neither is noticed by autoscalers.
func certificateReplaced(ctx context.Context, r *Run) error {
	reads, err := r.readAll(ctx)
	if err != nil {
		return err
	}
	defer reads.stop()
	bundle := func() (string, error) {
		return r.sh.ask(ctx, `kubectl get apiservice v1beta1.external.metrics.k8s.io -o jsonpath='{.spec.caBundle}'`)
	}
	before, err := bundle()
	if err != nil {
		return err
	}
	if _, err := r.sh.run(ctx, `kubectl patch secret -n datadog datadog-cluster-agent-tls -p '{"stringData":{"tls.crt":"junk"}}'`); err != nil {
		return err
	}
	if err := until(ctx, 30*time.Second, "the certificate to be repaired, and said", func(ctx context.Context) error {
		out, err := r.sh.ask(ctx, `kubectl get secret -n datadog datadog-cluster-agent-tls -o jsonpath='{.data.tls\.crt}' | base64 -d
kubectl get events -n datadog --field-selector involvedObject.name=datadog-cluster-agent-tls; kubectl logs -n datadog deploy/datadog-cluster-agent --since=1m`)
		if err != nil {
			return err
		}
		return contains(out, "BEGIN CERTIFICATE", "ServingCertificateReplaced", "replaced a serving certificate that was of no use")
	}); err != nil {
		return err
	}
	if _, err := r.sh.run(ctx, `kubectl get events -n datadog --field-selector reason=ServingCertificateReplaced
kubectl delete secret -n datadog datadog-cluster-agent-tls`); err != nil {
		return err
	}
	// Without its authority everything is made anew, and the registration follows.
	if err := until(ctx, 30*time.Second, "a new authority, and the APIService to trust it", func(context.Context) error {
		after, err := bundle()
		if err == nil && (after == "" || after == before) {
			err = errors.New("the caBundle has not changed")
		}
		return err
	}); err != nil {
		return err
	}
	if err := until(ctx, 30*time.Second, "a value under the new certificate", func(ctx context.Context) error {
		if v, _ := r.served(ctx); v == "-" {
			return errors.New("no value")
		}
		return nil
	}); err != nil {
		return err
	}
	if err := apiService(ctx, r); err != nil { // available, verified, no restart
		return err
	}
	// Between the new certificate and the API server's learning of the new caBundle
	// new connections may fail; the one that is open does not.
	failed, n := reads.stop()
	r.sayf("%d reads meanwhile, %d failed", n, len(failed))
	if len(failed) > n/20 {
		return fmt.Errorf("%d of %d reads failed while the certificate was replaced; the first: %s", len(failed), n, failed[0])
	}
	return r.recovers(ctx)
}

// threeReplicas: rolled, the leader ended and then killed, while autoscalers read.
func threeReplicas(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `kubectl scale -n datadog deploy/datadog-cluster-agent --replicas=3
`+clusterAgentReady); err != nil {
		return err
	}
	if err := r.unharmed(ctx, "the Deployment is rolled", `kubectl rollout restart -n datadog deploy/datadog-cluster-agent
`+clusterAgentReady, 0); err != nil {
		return err
	}
	const leader = `$(kubectl get lease -n datadog datadog-agent-leader-election -o jsonpath='{.spec.holderIdentity}')`
	if err := r.unharmed(ctx, "the leader is ended", `kubectl delete pod -n datadog `+leader+`
`+clusterAgentReady, 0); err != nil {
		return err
	}
	old, err := r.sh.ask(ctx, `kubectl get lease -n datadog datadog-agent-leader-election -o jsonpath='{.spec.holderIdentity}'`)
	if err != nil {
		return err
	}
	// Killed without a word: until the kubelet says so, requests may still go there.
	if err := r.unharmed(ctx, "the leader is killed", `kubectl delete pod -n datadog `+leader+` --grace-period=0 --force
`+clusterAgentReady, 4*time.Second); err != nil {
		return err
	}
	if err := until(ctx, 60*time.Second, "another leader", func(ctx context.Context) error {
		now, err := r.sh.ask(ctx, `kubectl get lease -n datadog datadog-agent-leader-election -o jsonpath='{.spec.holderIdentity}'`)
		if err == nil && (now == "" || now == old) {
			err = fmt.Errorf("the lease is held by %q", now)
		}
		return err
	}); err != nil {
		return err
	}
	_, err = r.sh.run(ctx, `kubectl scale -n datadog deploy/datadog-cluster-agent --replicas=1
`+clusterAgentReady)
	return errors.Join(err, r.recovers(ctx))
}

// unharmed types a command while the metric is read, and fails when a read does
// for longer than within, or when the autoscaler notices.
func (r *Run) unharmed(ctx context.Context, what, command string, within time.Duration) error {
	reads, err := r.readAll(ctx)
	if err != nil {
		return err
	}
	defer reads.stop()
	if _, err := r.sh.run(ctx, command); err != nil {
		return err
	}
	select { // one sync of the autoscaler at least
	case <-time.After(16 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	failed, n := reads.stop()
	r.sayf("while %s: %d reads, %d failed", what, n, len(failed))
	switch {
	case n < 50:
		return fmt.Errorf("while %s: only %d reads, want at least 50", what, n)
	case len(failed) > 0 && failed[len(failed)-1].at.Sub(failed[0].at) >= within:
		return fmt.Errorf("while %s: %d of %d reads failed, over %s; the first: %s", what, len(failed), n,
			failed[len(failed)-1].at.Sub(failed[0].at).Round(time.Millisecond), failed[0])
	}
	h, err := r.hpa(ctx)
	if err != nil {
		return err
	}
	if status, message := h.condition("ScalingActive"); status != "True" {
		return fmt.Errorf("after %s the autoscaler's ScalingActive is %s: %s", what, status, message)
	}
	return nil
}

// reads are those of one that reads a metric all the time, as the controller's own account.
type reads struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	n      int
	failed []failedRead
}

type failedRead struct {
	at  time.Time
	why string
}

func (f failedRead) String() string { return f.at.Format(time.StampMilli) + " " + f.why }

// readAll reads the metric ten times a second until it is stopped. The
// application is asked once a second, so that there is one.
func (r *Run) readAll(ctx context.Context) (*reads, error) {
	const port = "8081"
	if err := r.request(ctx); err != nil {
		return nil, err
	}
	trickle, err := r.sh.start(ctx, `while sleep 1; do curl -sS -o /dev/null http://localhost:8080/ || true; done`)
	if err != nil {
		return nil, err
	}
	proxy, err := r.sh.start(ctx, `kubectl proxy --port `+port+` --as system:serviceaccount:kube-system:horizontal-pod-autoscaler`)
	if err != nil {
		return nil, err
	}
	url := "http://127.0.0.1:" + port + r.metricPath()
	if err := until(ctx, 30*time.Second, "a value to read through a proxy", func(ctx context.Context) error { return fetch(ctx, url) }); err != nil {
		r.sh.stop(proxy)
		r.sh.stop(trickle)
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	out := &reads{cancel: cancel}
	out.wg.Go(func() {
		defer r.sh.stop(proxy)
		defer r.sh.stop(trickle)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			at := time.Now()
			err := fetch(ctx, url)
			if ctx.Err() != nil {
				return
			}
			out.mu.Lock()
			out.n++
			if err != nil {
				out.failed = append(out.failed, failedRead{at, err.Error()})
			}
			out.mu.Unlock()
		}
	})
	return out, nil
}

// stop ends the reads, and says how they went.
func (r *reads) stop() (failed []failedRead, n int) {
	r.cancel()
	r.wg.Wait()
	return r.failed, r.n
}

// fetch is one read: a value, or an error that says what came instead.
func fetch(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("read %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err // names the request
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return fmt.Errorf("read %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), `"value"`) {
		return fmt.Errorf("read %s: status %d: %s", url, resp.StatusCode, tail(string(body), 300))
	}
	return nil
}
