package walkthrough

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// KEDASteps returns the story of KEDA beside Kelpie, in order: one registration,
// which is ours, and behind it autoscalers of both. It needs mode CRD, and the
// images of make keda-image in the registry.
func KEDASteps() []Step {
	return []Step{
		{Row: "K1", Title: "KEDA from its own manifests, without its APIService", Do: installKEDA},
		{Row: "K2", Title: "A namespace for Kelpie, its keys, and the authority that KEDA made", Do: prepareFrontDoor},
		{Row: "K3", Title: "Kelpie by its chart, as the front door of KEDA", Do: installFrontDoor},
		{Row: "K4", Title: "Kubernetes asks Kelpie for external metrics", Do: apiService},
		{Row: "K5", Title: "KEDA's scaler trusts the cluster agent's authority", Do: trustClusterAgent},
		{Row: "K6", Title: "An application that counts its requests", Do: application},
		{Row: "K7", Title: "One request, and its metric can be queried", Do: firstRequest},
		{Row: "K8", Title: "Three autoscalers: an HPA of ours, and KEDA's scaler in both of its ways", Do: applyKEDA},
		{Row: "K9", Title: "Load: KEDA's workloads 0 → 4 → 0, the HPA's 1 → N → 1", Do: kedaLoad},
		{Row: "K10", Title: "KEDA's requests went through the front door and left nothing behind", Do: throughFrontDoor},
		{Row: "K11", Title: "An operator of KEDA that writes caBundle: who wins", Do: twoAuthorities},
	}
}

func installKEDA(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `../../scripts/keda-install.sh $REGISTRY `+r.opts.KEDATag+`
kubectl get pods -n keda`); err != nil {
		return errors.Join(err, r.whyKEDA(ctx))
	}
	out, err := r.sh.run(ctx, `kubectl get apiservice -o name | grep external.metrics || true`)
	if err == nil && out != "" {
		err = fmt.Errorf("KEDA registered itself: %s", out)
	}
	return err
}

func (r *Run) whyKEDA(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	out, _ := r.sh.ask(ctx, `kubectl get pods -n keda -o wide; kubectl get events -n keda | tail -20
kubectl get scaledobject -A || true
for d in keda-operator keda-metrics-apiserver tlsproxy; do echo "== $d"; kubectl logs -n keda deploy/$d --tail=25 || true; done`)
	return fmt.Errorf("KEDA says:\n%s", tail(out, 12000))
}

func prepareFrontDoor(ctx context.Context, r *Run) error {
	if err := createNamespace(ctx, r); err != nil {
		return err
	}
	if err := createKeys(ctx, r); err != nil {
		return err
	}
	_, err := r.sh.run(ctx, `kubectl -n keda get secret kedaorg-certs -o jsonpath='{.data.ca\.crt}' | base64 -d |
  kubectl -n datadog create configmap keda-ca --from-file=ca.crt=/dev/stdin`)
	return err
}

func installFrontDoor(ctx context.Context, r *Run) error {
	_, err := r.sh.run(ctx, "helm install datadog-agent ../../charts/kelpie --namespace datadog --values "+r.valuesFile()+" --values ../keda/values.yaml \\\n    "+r.image()+`
kubectl rollout status -n datadog ds/datadog-agent --timeout=180s
kubectl rollout status -n datadog sts/datadog-agent-backend --timeout=180s
kubectl rollout status -n datadog deploy/datadog-cluster-agent --timeout=180s`)
	if err != nil {
		return errors.Join(err, r.whyNotReady(ctx))
	}
	return nil
}

// trustClusterAgent: KEDA reads its authorities once, at its start.
func trustClusterAgent(ctx context.Context, r *Run) error {
	_, err := r.sh.run(ctx, `kubectl -n datadog get secret datadog-cluster-agent-tls -o jsonpath='{.data.ca\.crt}' | base64 -d |
  kubectl -n keda create configmap kelpie-ca --from-file=ca.crt=/dev/stdin
kubectl -n keda rollout restart deployment/keda-operator
kubectl -n keda rollout status deployment/keda-operator --timeout=120s`)
	return err
}

func applyKEDA(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `sed "s#<YOUR_REGISTRY>#$REGISTRY#" ../keda/workers.yaml | kubectl apply -f -
kubectl create secret generic datadog-keys -n test --from-literal api-key=$API_KEY --from-literal app-key=$APP_KEY
kubectl apply -f ../keda/cluster-agent-way.yaml -f ../keda/api-way.yaml`); err != nil {
		return err
	}
	if err := applyCRD(ctx, r); err != nil {
		return err
	}
	// KEDA's own autoscalers are read by Kubernetes through the front door, and
	// only while their workload is not at zero: the objects must be ready now.
	err := until(ctx, 2*time.Minute, "KEDA's ScaledObjects to be ready", func(ctx context.Context) error {
		for _, name := range []string{"worker", "worker-api"} {
			out, err := r.sh.ask(ctx, `kubectl get scaledobject -n test `+name+` -o jsonpath='{range .status.conditions[*]}{.type}={.status}: {.message}{"\n"}{end}'`)
			if err != nil {
				return err
			}
			if err := contains(out, "Ready=True"); err != nil {
				return fmt.Errorf("ScaledObject %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, r.whyKEDA(ctx))
	}
	_, err = r.sh.run(ctx, `kubectl get scaledobject,hpa,deploy -n test`)
	return err
}

// throughFrontDoor: what KEDA's autoscalers asked was passed on and answered, and
// none of their plain metric names became a query of ours.
func throughFrontDoor(ctx context.Context, r *Run) error {
	out, err := r.sh.ask(ctx, `for p in $(kubectl get pods -n datadog -l app=datadog-cluster-agent -o name); do
  kubectl get --raw "/api/v1/namespaces/datadog/pods/${p#pod/}:5556/proxy/metrics"; done | grep '^kelpie_keda_requests_total'`)
	if err != nil {
		return err
	}
	r.sayf("%s", strings.TrimSpace(out))
	if err := contains(out, `answer="200"`); err != nil {
		return fmt.Errorf("KEDA's metrics server answered nothing through the front door: %w", err)
	}
	out, err = r.sh.run(ctx, `kubectl get datadogmetric -A -o name`)
	if err != nil {
		return err
	}
	if strings.Contains(out, "dcaautogen-") {
		return fmt.Errorf("a metric of KEDA became an object of ours: %s", out)
	}
	out, err = r.sh.run(ctx, `kubectl get --raw /apis/external.metrics.k8s.io/v1beta1; echo`)
	if err != nil {
		return err
	}
	if err := contains(out, "datadogmetric@test:flask-request-rate"); err != nil {
		return err
	}
	return apiService(ctx, r)
}
