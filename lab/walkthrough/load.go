package walkthrough

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Limits of the load step: the polled chain takes up to two minutes up (bucket,
// poll, HPA sync), and the same plus the stabilization window down: 20 s in the
// lab, five minutes by default elsewhere.
const (
	upLimit   = 4 * time.Minute
	downLimit = 10 * time.Minute
)

// load sends requests for 30 s and follows the replicas up and down again.
func load(ctx context.Context, r *Run) error {
	before, err := r.replicas(ctx)
	if err != nil {
		return err
	}
	if before.spec != 1 {
		return fmt.Errorf("the deployment has %d replicas before the load, want 1", before.spec)
	}
	hey, err := r.sh.start(ctx, `hey -z 30s -c 10 http://localhost:8080/`)
	if err != nil {
		return err
	}
	began := time.Now()
	r.table("", "req/s", "served", "age", "replicas", "ready")
	if err := r.watch(ctx, began, upLimit, func(s scale) bool { return s.spec == 5 }); err != nil {
		return fmt.Errorf("scale up: %w\n%s", err, r.why(ctx))
	}
	r.Up = time.Since(began)
	select {
	case <-hey.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := contains(hey.output.String(), "[200]"); err != nil {
		return fmt.Errorf("the load got no answers: %w", err)
	}
	r.sayf("1 → 5 replicas %s after the load began; hey: %s", r.Up.Round(time.Second), grep(hey.output.String(), "Requests/sec"))
	// The load may outlive the scale-up; what comes down is counted from its end.
	ended := began.Add(30 * time.Second)
	if r.Up > 30*time.Second {
		ended = time.Now()
	}
	if err := r.watch(ctx, began, downLimit, func(s scale) bool { return s.spec == 1 }); err != nil {
		return fmt.Errorf("scale down: %w\n%s", err, r.why(ctx))
	}
	r.Down = time.Since(ended)
	r.sayf("5 → 1 replicas %s after that, the stabilization window included", r.Down.Round(time.Second))
	if _, err := r.sh.run(ctx, `kubectl get hpa -n test; kubectl get deploy -n test`); err != nil {
		return err
	}
	// The pod that port 8080 led to may have been one of the four.
	return r.request(ctx)
}

type scale struct{ spec, ready int }

func (r *Run) replicas(ctx context.Context) (scale, error) {
	var d struct {
		Spec   struct{ Replicas int }
		Status struct{ ReadyReplicas int }
	}
	err := r.sh.askJSON(ctx, `kubectl get deploy test-metric-app -n test -o json`, &d)
	return scale{d.Spec.Replicas, d.Status.ReadyReplicas}, err
}

// watch prints a line every five seconds, and one whenever the replicas change,
// until done.
func (r *Run) watch(ctx context.Context, began time.Time, limit time.Duration, done func(scale) bool) error {
	var last scale
	var printed time.Time
	return until(ctx, limit, "the replicas to follow the load", func(ctx context.Context) error {
		s, err := r.replicas(ctx)
		if err != nil {
			return err
		}
		r.Peak = max(r.Peak, s.spec)
		if s != last || time.Since(printed) >= 5*time.Second {
			rate := "-"
			// Clients count for two seconds before they send: of single seconds every
			// other would be empty.
			if v, err := r.newest(ctx, requestRate+".rollup(10)"); err == nil {
				rate = fmt.Sprintf("%.1f", v)
			}
			value, age := r.served(ctx)
			r.table(fmt.Sprintf("%3.0fs", time.Since(began).Seconds()), rate, value, age, fmt.Sprint(s.spec), fmt.Sprint(s.ready))
			last, printed = s, time.Now()
		}
		if !done(s) {
			return fmt.Errorf("%d replicas wanted, %d ready", s.spec, s.ready)
		}
		return nil
	})
}

func (r *Run) table(at, rate, served, age, replicas, ready string) {
	r.sayf("%6s  %10s  %10s  %5s  %8s  %5s", at, rate, served, age, replicas, ready)
}

// metricPath is the external metric that this mode's HPA reads.
func (r *Run) metricPath() string {
	const base = `/apis/external.metrics.k8s.io/v1beta1/namespaces/test/`
	if r.opts.Mode == CRD {
		return base + `datadogmetric@test:flask-request-rate`
	}
	return base + `flask.request.rate?labelSelector=kube_deployment%3Dtest-metric-app,kube_namespace%3Dtest`
}

// served is the value that an HPA would read now and how old its newest point is,
// or dashes.
func (r *Run) served(ctx context.Context) (value, age string) {
	var list struct {
		Items []struct {
			Value     string
			Timestamp time.Time
		}
	}
	if err := r.sh.askJSON(ctx, `kubectl get --raw '`+r.metricPath()+`'`, &list); err != nil || len(list.Items) != 1 {
		return "-", "-"
	}
	return list.Items[0].Value, time.Since(list.Items[0].Timestamp).Truncate(time.Second).String()
}

// why is what a person would look at when replicas do not move.
func (r *Run) why(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	out, _ := r.sh.ask(ctx, `kubectl describe hpa -n test || true; kelpie doctor hpa/test-metric-hpa -n test || true
kubectl logs -n datadog deploy/datadog-cluster-agent --tail=20 || true`)
	return tail(out, 8000)
}

func grep(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return ""
}
