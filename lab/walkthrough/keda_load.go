package walkthrough

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

// kedaRate is the load in requests a second. Both of KEDA's targets are 5 a
// replica, so the workloads must come to kedaWant.
const (
	kedaRate = 20
	kedaWant = 4
)

// kedaLoad follows three Deployments up and down again: those of KEDA to what the
// load calls for and to zero, that of the HPA up and back to one.
func kedaLoad(ctx context.Context, r *Run) error {
	began := time.Now()
	idle := map[string]int{"test-metric-app": 1, "worker": 0, "worker-api": 0}
	// The requests of earlier rows may have woken KEDA's workloads.
	err := r.follow(ctx, began, func(at map[string]int) error {
		if !maps.Equal(at, idle) {
			return fmt.Errorf("replicas are %v, want %v before the load", at, idle)
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, r.whyKEDA(ctx))
	}
	load, err := r.sh.start(ctx, fmt.Sprintf(`hey -z 5m -c 4 -q %d http://localhost:8080/`, kedaRate/4))
	if err != nil {
		return err
	}
	began = time.Now()
	reached := map[string]time.Duration{}
	err = r.follow(ctx, began, func(at map[string]int) error {
		for name, n := range at {
			if _, seen := reached[name]; !seen && n > idle[name] && (name == "test-metric-app" || n == kedaWant) {
				reached[name] = time.Since(began)
			}
		}
		if len(reached) < 3 {
			return fmt.Errorf("reached so far: %v of test-metric-app > 1, worker and worker-api = %d", reached, kedaWant)
		}
		return nil
	})
	if err != nil {
		return errors.Join(fmt.Errorf("scale up: %w\n%s", err, r.why(ctx)), r.whyKEDA(ctx))
	}
	if err := r.kedaReads(ctx); err != nil {
		return err
	}
	r.sh.stop(load)
	ended := time.Now()
	back := map[string]time.Duration{}
	err = r.follow(ctx, began, func(at map[string]int) error {
		for name, n := range at {
			if _, seen := back[name]; !seen && n == idle[name] {
				back[name] = time.Since(ended)
			}
		}
		if !maps.Equal(at, idle) {
			return fmt.Errorf("replicas are %v, want %v again", at, idle)
		}
		return nil
	})
	if err != nil {
		return errors.Join(fmt.Errorf("scale down: %w\n%s", err, r.why(ctx)), r.whyKEDA(ctx))
	}
	for name := range idle {
		r.sayf("%-16s up %s after the load began, back to %d %s after it ended", name, reached[name].Round(time.Second), idle[name], back[name].Round(time.Second))
	}
	return nil
}

// kedaReads: Kubernetes reads the metrics of KEDA's autoscalers, which it can
// only through the front door.
func (r *Run) kedaReads(ctx context.Context) error {
	for _, name := range []string{"keda-hpa-worker", "keda-hpa-worker-api"} {
		var h hpaObject
		if err := r.sh.askJSON(ctx, `kubectl get hpa -n test `+name+` -o json`, &h); err != nil {
			return err
		}
		if status, message := h.condition("ScalingActive"); status != "True" {
			return errors.Join(fmt.Errorf("HPA %s: ScalingActive is %q: %s", name, status, message), r.whyKEDA(ctx))
		}
	}
	_, err := r.sh.run(ctx, `kubectl get scaledobject,hpa,deploy -n test`)
	return err
}

// follow says how the replicas change until done returns nil.
func (r *Run) follow(ctx context.Context, began time.Time, done func(map[string]int) error) error {
	var last map[string]int
	return until(ctx, 5*time.Minute, "the replicas to follow the load", func(ctx context.Context) error {
		at, err := r.deployments(ctx)
		if err != nil {
			return err
		}
		if !maps.Equal(at, last) {
			r.sayf("%4.0fs  test-metric-app %d  worker %d  worker-api %d", time.Since(began).Seconds(), at["test-metric-app"], at["worker"], at["worker-api"])
			last = at
		}
		return done(at)
	})
}

// deployments returns the replicas that each Deployment of the application's
// namespace is to have.
func (r *Run) deployments(ctx context.Context) (map[string]int, error) {
	out, err := r.sh.ask(ctx, `kubectl get deploy -n test -o jsonpath='{range .items[*]}{.metadata.name} {.spec.replicas}{"\n"}{end}'`)
	if err != nil {
		return nil, err
	}
	at := map[string]int{}
	for line := range strings.Lines(out) {
		var name string
		var n int
		if _, err := fmt.Sscan(line, &name, &n); err != nil {
			return nil, fmt.Errorf("read the replicas of %q: %w", line, err)
		}
		at[name] = n
	}
	return at, nil
}
