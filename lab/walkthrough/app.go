package walkthrough

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

func application(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `kubectl create namespace test`); err != nil {
		return err
	}
	if err := r.own(ctx, "test"); err != nil {
		return err
	}
	_, err := r.sh.run(ctx, `sed "s#<YOUR_REGISTRY>#$REGISTRY#" app.yaml | kubectl apply -f -
kubectl rollout status -n test deploy/test-metric-app --timeout=120s`)
	if err != nil {
		return errors.Join(err, r.whyNotReady(ctx))
	}
	return nil
}

const requestRate = `sum:flask.request.rate{kube_namespace:test,kube_deployment:test-metric-app}`

// firstRequest measures from the request to the metric being queryable with
// both of its tags.
func firstRequest(ctx context.Context, r *Run) error {
	if _, err := r.sh.ask(ctx, `exec 3<>/dev/tcp/127.0.0.1/8080`); err == nil {
		return errors.New("port 8080 of this machine is taken: end what listens there (ss -ltnp 'sport = :8080'), the walkthrough forwards it")
	}
	if err := r.forward(ctx); err != nil {
		return err
	}
	// The pod has no readiness probe: it may be Ready before it listens.
	if err := until(ctx, 30*time.Second, "an answer to the first request", func(ctx context.Context) error {
		out, err := r.sh.run(ctx, `curl -sS http://localhost:8080/; echo`)
		if err == nil {
			return contains(out, "Hello!")
		}
		r.sh.stop(r.forwarded)
		return errors.Join(err, r.forward(ctx))
	}); err != nil {
		return err
	}
	asked := time.Now()
	// The contract is 15 s; a slow machine's commands take a few of their own.
	if err := until(ctx, 25*time.Second, "the metric in a query", func(ctx context.Context) error {
		_, err := r.newest(ctx, requestRate)
		return err
	}); err != nil {
		return err
	}
	r.First = time.Since(asked)
	if _, err := r.sh.run(ctx, `kelpie query '`+requestRate+`' --from 1m`); err != nil {
		return err
	}
	r.sayf("queryable %s after the request", r.First.Round(100*time.Millisecond))
	if r.First > 15*time.Second {
		return fmt.Errorf("the metric was queryable only %s after the request, want 15 s at most", r.First.Round(time.Second))
	}
	return r.otherKeysAreRefused(ctx)
}

// forward forwards port 8080 to the application, as a user does.
func (r *Run) forward(ctx context.Context) error {
	var err error
	if r.forwarded, err = r.sh.start(ctx, `kubectl port-forward svc/test-metric-app -n test 8080:80`); err != nil {
		return err
	}
	return until(ctx, 30*time.Second, "port-forward to the application", func(ctx context.Context) error {
		_, err := r.sh.ask(ctx, `exec 3<>/dev/tcp/127.0.0.1/8080`)
		return err
	})
}

// request sends the application one request. A port-forward goes to one pod, and
// ends at the first request after a scale-down took that pod: it is begun anew.
func (r *Run) request(ctx context.Context) error {
	return until(ctx, time.Minute, "an answer from the application", func(ctx context.Context) error {
		_, err := r.sh.ask(ctx, `curl -sS http://localhost:8080/`)
		if err == nil {
			return nil
		}
		r.sayf("the port-forward's pod is gone; again:")
		r.sh.stop(r.forwarded)
		return errors.Join(err, r.forward(ctx))
	})
}

// newest returns the newest value of a query, as kelpie query prints it for machines.
func (r *Run) newest(ctx context.Context, query string) (float64, error) {
	var answer struct {
		Series []struct {
			Pointlist [][2]*float64
		}
	}
	if err := r.sh.askJSON(ctx, `kelpie query '`+query+`' --from 1m -o json`, &answer); err != nil {
		return 0, err
	}
	for _, s := range answer.Series {
		for i := len(s.Pointlist) - 1; i >= 0; i-- {
			if v := s.Pointlist[i][1]; v != nil {
				return *v, nil
			}
		}
	}
	return 0, errors.New("no points yet for " + query)
}

// otherKeysAreRefused is row 2's promise: what the Secret holds is accepted, and
// nothing else.
func (r *Run) otherKeysAreRefused(ctx context.Context) error {
	const path = `/api/v1/namespaces/datadog/services/http:datadog-agent-backend:8080/proxy`
	for _, c := range []struct{ name, apiKey, appKey, want string }{
		{"both keys", "$API_KEY", "$APP_KEY", "200"},
		{"a wrong API key", strings.Repeat("0", 32), "$APP_KEY", "403"},
		{"a wrong application key", "$API_KEY", strings.Repeat("0", 40), "403"},
		{"no key", "", "", "403"},
	} {
		// Straight to the API server, as kubectl cannot send headers.
		out, err := r.sh.ask(ctx, `d=$(mktemp -d); trap 'rm -rf $d' EXIT
for f in certificate-authority-data client-certificate-data client-key-data; do
  kubectl config view --raw --minify -o json | tr ',' '\n' | grep "\"$f\"" | cut -d'"' -f4 | base64 -d > $d/$f; done
server=$(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}')
curl -sS -o /dev/null -w '%{http_code}' --cacert $d/certificate-authority-data --cert $d/client-certificate-data --key $d/client-key-data \
  -H "DD-API-KEY: `+c.apiKey+`" -H "DD-APPLICATION-KEY: `+c.appKey+`" "$server`+path+`/api/v1/metrics?from=1"`)
		if err != nil {
			return err
		}
		if out != c.want {
			return fmt.Errorf("with %s the backend answered %s, want %s", c.name, out, c.want)
		}
	}
	return nil
}

func (r *Run) sayf(format string, args ...any) {
	_, _ = fmt.Fprintf(r.opts.Out, "  "+format+"\n", args...)
}

func applyInline(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `kubectl apply -f hpa-inline.yaml`); err != nil {
		return err
	}
	return r.hpaReads(ctx)
}

func applyCRD(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `kubectl apply -f datadogmetric.yaml -f hpa-crd.yaml`); err != nil {
		return err
	}
	if err := r.hpaReads(ctx); err != nil {
		return err
	}
	out, err := r.sh.run(ctx, `kubectl get datadogmetric -n test`)
	if err != nil {
		return err
	}
	if err := contains(out, "ACTIVE", "VALID", "VALUE", "REFERENCES", "UPDATE TIME", "hpa:test/test-metric-hpa"); err != nil {
		return err
	}
	fields := strings.Fields(out[strings.Index(out, "flask-request-rate"):])
	if fields[1] != "True" || fields[2] != "True" {
		return fmt.Errorf("ACTIVE is %s and VALID %s, want True and True", fields[1], fields[2])
	}
	return nil
}

// hpaReads waits until the HPA controller has read the metric.
func (r *Run) hpaReads(ctx context.Context) error {
	// One request more, so that the newest complete bucket is young.
	if err := r.request(ctx); err != nil {
		return err
	}
	return until(ctx, 90*time.Second, "the HPA to read the metric", func(ctx context.Context) error {
		h, err := r.hpa(ctx)
		if err != nil {
			return err
		}
		if status, message := h.condition("ScalingActive"); status != "True" {
			return fmt.Errorf("ScalingActive is %q: %s", status, message)
		}
		return nil
	})
}

// hpaObject is what the steps read of an HPA.
type hpaObject struct {
	Status struct {
		DesiredReplicas int
		CurrentReplicas int
		Conditions      []struct{ Type, Status, Reason, Message string }
	}
}

func (h *hpaObject) condition(kind string) (status, message string) {
	for _, c := range h.Status.Conditions {
		if c.Type == kind {
			return c.Status, c.Reason + ": " + c.Message
		}
	}
	return "", "not there yet"
}

func (r *Run) hpa(ctx context.Context) (*hpaObject, error) {
	var h hpaObject
	err := r.sh.askJSON(ctx, `kubectl get hpa test-metric-hpa -n test -o json`, &h)
	return &h, err
}

// autogen: in mode B an inline HPA has a dcaautogen- object while it lives.
func autogen(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `kubectl apply -f hpa-inline.yaml`); err != nil {
		return err
	}
	if err := r.hpaReads(ctx); err != nil {
		return err
	}
	out, err := r.sh.run(ctx, `kubectl get datadogmetric -n datadog`)
	if err != nil {
		return err
	}
	// The suffix follows from the query's text: reference external-metrics 3.2.
	if err := contains(out, "dcaautogen-", "hpa:test/test-metric-hpa"); err != nil {
		return err
	}
	// The default expiry is upstream's three hours; a short one shows that it ends.
	if _, err := r.sh.run(ctx, `kubectl set env -n datadog deploy/datadog-cluster-agent KELPIE_AUTOGEN_EXPIRY=2s
kubectl rollout status -n datadog deploy/datadog-cluster-agent --timeout=120s
kubectl delete hpa test-metric-hpa -n test`); err != nil {
		return err
	}
	return until(ctx, 60*time.Second, "the dcaautogen- object to go", func(ctx context.Context) error {
		out, err := r.sh.ask(ctx, `kubectl get datadogmetric -n datadog -o name`)
		if err == nil && strings.Contains(out, "dcaautogen-") {
			err = errors.New("still there: " + out)
		}
		return err
	})
}
