package walkthrough

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A fault is broken, seen in each place where a user looks, and mended. No fault
// may scale anything up; that none scales down either is what holds proves.
type fault struct {
	breakIt string
	mend    string
	hpa     []string // what kubectl describe hpa must say
	metric  []string // what kubectl describe datadogmetric must say; mode B only
	log     []string // what the cluster agent's log must say
	doctor  []string // what kelpie doctor must say
	within  time.Duration
	since   string                      // when it was broken, RFC 3339: what the log said before proves nothing
	also    func(context.Context) error // a further proof while it is broken; may be nil
}

func (r *Run) prove(ctx context.Context, f fault) error {
	f.since = time.Now().UTC().Format(time.RFC3339)
	if _, err := r.sh.run(ctx, f.breakIt); err != nil {
		return err
	}
	if f.within == 0 {
		f.within = 90 * time.Second
	}
	seen := r.seeFault(ctx, f)
	if seen == nil && f.also != nil {
		seen = f.also(ctx)
	}
	if _, err := r.sh.run(ctx, f.mend); err != nil {
		return errors.Join(seen, err)
	}
	if seen != nil {
		return seen
	}
	return r.recovers(ctx)
}

func (r *Run) seeFault(ctx context.Context, f fault) error {
	before, err := r.replicas(ctx)
	if err != nil {
		return err
	}
	look := func(place, command string, want []string) error {
		if len(want) == 0 {
			return nil
		}
		return until(ctx, f.within, place+" to name the fault", func(ctx context.Context) error {
			out, err := r.sh.ask(ctx, command)
			if err != nil {
				return err
			}
			return contains(out, want...)
		})
	}
	var errs []error
	if r.opts.Mode == CRD {
		errs = append(errs, look("kubectl describe datadogmetric", `kubectl describe datadogmetric flask-request-rate -n test`, f.metric))
	}
	errs = append(errs,
		look("kubectl describe hpa", `kubectl describe hpa test-metric-hpa -n test | sed '/^Events:/,$d'`, f.hpa),
		look("the cluster agent's log", `kubectl logs -n datadog deploy/datadog-cluster-agent --since-time=`+f.since, f.log),
		// Doctor exits 1 at a broken link: that is its answer.
		look("kelpie doctor", `kelpie doctor hpa/test-metric-hpa -n test && exit 9 || [ $? = 1 ]`, f.doctor))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w\n%s", err, r.why(ctx))
	}
	if _, err := r.sh.run(ctx, `kelpie doctor hpa/test-metric-hpa -n test || true`); err != nil {
		return err
	}
	after, err := r.replicas(ctx)
	if err != nil {
		return err
	}
	if after.spec != before.spec {
		return fmt.Errorf("the replicas went from %d to %d on a fault, want them held", before.spec, after.spec)
	}
	return nil
}

// recovers waits until doctor finds nothing.
func (r *Run) recovers(ctx context.Context) error {
	if err := r.request(ctx); err != nil {
		return err
	}
	return until(ctx, 2*time.Minute, "doctor to find the chain whole again", func(ctx context.Context) error {
		_, err := r.sh.ask(ctx, `kelpie doctor hpa/test-metric-hpa -n test`)
		return err
	})
}

const noSuchTag = `kube_deployment:no-such-app`

func wrongTag(ctx context.Context, r *Run) error {
	f := fault{
		hpa:    []string{"matches no series"},
		log:    []string{"matches no series", "no-such-app"},
		doctor: []string{"no-such-app", "kube_deployment", "test-metric-app", "mend:"},
	}
	if r.opts.Mode == CRD {
		f.breakIt = `kubectl patch datadogmetric flask-request-rate -n test --type merge -p '{"spec":{"query":"avg:flask.request.rate{kube_namespace:test,` + noSuchTag + `}"}}'`
		f.mend = `kubectl apply -f datadogmetric.yaml`
		f.metric = []string{"NoData", "matches no series"}
		return r.prove(ctx, f)
	}
	f.breakIt = `sed 's#kube_deployment: test-metric-app#kube_deployment: no-such-app#' hpa-inline.yaml | kubectl apply -f -`
	f.mend = `kubectl apply -f hpa-inline.yaml`
	return r.prove(ctx, f)
}

// syntaxError is possible only where a user writes a query: in mode B. In mode A
// its counterpart is a metric that cannot be translated into one.
func syntaxError(ctx context.Context, r *Run) error {
	if r.opts.Mode == CRD {
		const bad = `avg:flask.request.rate{kube_namespace:test`
		at := fmt.Sprintf("at %d", len(bad))
		return r.prove(ctx, fault{
			breakIt: `kubectl patch datadogmetric flask-request-rate -n test --type merge -p '{"spec":{"query":"` + bad + `"}}'`,
			mend:    `kubectl apply -f datadogmetric.yaml`,
			metric:  []string{"SyntaxError", at},
			hpa:     []string{at},
			log:     []string{at},
			doctor:  []string{at, "mend:"},
		})
	}
	return r.prove(ctx, fault{
		breakIt: `kubectl patch hpa test-metric-hpa -n test --type json -p '[{"op":"replace","path":"/spec/metrics/0/external/metric/name","value":"9lives"}]'`,
		mend:    `kubectl apply -f hpa-inline.yaml`,
		hpa:     []string{"9lives", "cannot be queried"},
		log:     []string{"9lives"},
		doctor:  []string{"9lives", "mend:"},
	})
}

func wrongAppKey(ctx context.Context, r *Run) error {
	patch := func(key string) string {
		return `kubectl patch secret datadog-secret -n datadog -p '{"stringData":{"app-key":"` + key + `"}}'
kubectl rollout restart -n datadog deploy/datadog-cluster-agent
kubectl rollout status -n datadog deploy/datadog-cluster-agent --timeout=120s`
	}
	// Only the cluster agent restarts: the backend goes on accepting the old key.
	return r.prove(ctx, fault{
		breakIt: patch(strings.Repeat("f", 40)),
		mend:    patch(`'"$APP_KEY"'`),
		hpa:     []string{"403", "datadog-secret", "app-key"},
		metric:  []string{"Unauthorized", "403", "datadog-secret", "app-key"},
		log:     []string{"403", "datadog-secret"},
		doctor:  []string{"application key", "datadog-secret", "mend:"},
	})
}

func backendStopped(ctx context.Context, r *Run) error {
	return r.prove(ctx, fault{
		breakIt: `kubectl scale -n datadog sts/datadog-agent-backend --replicas=0
kubectl wait -n datadog pod/datadog-agent-backend-0 --for=delete --timeout=60s`,
		mend: `kubectl scale -n datadog sts/datadog-agent-backend --replicas=1
kubectl rollout status -n datadog sts/datadog-agent-backend --timeout=120s`,
		hpa:    []string{"older than its max age"},
		metric: []string{"datadog-agent-backend"},
		log:    []string{"SourceUnavailable", "datadog-agent-backend"},
		doctor: []string{"datadog-agent-backend", "mend:"},
		within: 150 * time.Second,
		also:   r.holds,
	})
}

// holds shows that a value past its age is not acted on. The last one was 0: an
// autoscaler that believed it would take three replicas down to one within two
// of its 15 s syncs and the lab's 20 s stabilization window.
func (r *Run) holds(ctx context.Context) error {
	if _, err := r.sh.run(ctx, `kubectl scale -n test deploy/test-metric-app --replicas=3`); err != nil {
		return err
	}
	const long = 70 * time.Second
	began := time.Now()
	return until(ctx, 2*long, "the replicas to stand for "+long.String(), func(ctx context.Context) error {
		s, err := r.replicas(ctx)
		switch {
		case err != nil:
			return err
		case s.spec != 3:
			return errFatal{fmt.Errorf("the replicas went from 3 to %d on a value that is too old", s.spec)}
		case time.Since(began) < long:
			return errors.New("not long enough yet")
		}
		return nil
	})
}
