package walkthrough

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// describeMetric is row 9: the four conditions, each with a reason and a message.
func describeMetric(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `kubectl get datadogmetric flask-request-rate -n test -o yaml`); err != nil {
		return err
	}
	out, err := r.sh.run(ctx, `kubectl get ddm flask-request-rate -n test -o wide`)
	if err != nil {
		return err
	}
	if err := contains(out, "REASON", "MESSAGE", "ValueAvailable"); err != nil {
		return err
	}
	var m struct {
		Status struct {
			CurrentValue string
			Conditions   []struct{ Type, Status, Reason, Message string }
		}
	}
	if err := r.sh.askJSON(ctx, `kubectl get datadogmetric flask-request-rate -n test -o json`, &m); err != nil {
		return err
	}
	if _, err := strconv.ParseFloat(m.Status.CurrentValue, 64); err != nil {
		return fmt.Errorf("status.currentValue: %w", err)
	}
	want := []struct{ kind, status string }{{"Active", "True"}, {"Valid", "True"}, {"Updated", "True"}, {"Error", "False"}}
	if len(m.Status.Conditions) != len(want) {
		return fmt.Errorf("%d conditions, want %d: %+v", len(m.Status.Conditions), len(want), m.Status.Conditions)
	}
	for i, w := range want {
		c := m.Status.Conditions[i]
		if c.Type != w.kind || c.Status != w.status || c.Reason == "" || c.Message == "" {
			return fmt.Errorf("condition %d is %+v, want %s %s with a reason and a message", i, c, w.kind, w.status)
		}
	}
	return nil
}

// exposed is row 10.
func exposed(ctx context.Context, r *Run) error {
	out, err := r.sh.run(ctx, `kubectl get --raw /apis/external.metrics.k8s.io/v1beta1; echo`)
	if err != nil {
		return err
	}
	name := "flask.request.rate"
	if r.opts.Mode == CRD {
		name = "datadogmetric@test:flask-request-rate"
	}
	if err := contains(out, `"APIResourceList"`, name, "ExternalMetricValueList"); err != nil {
		return err
	}
	out, err = r.sh.run(ctx, `kubectl get --raw '`+r.metricPath()+`'; echo`)
	if err != nil {
		return err
	}
	return contains(out, `"value"`, `"timestamp"`)
}

// pollingInterval is row 11: the user's own env entry reaches the provider. The
// other settings make the faults of row 12 show sooner, and have the agent look
// for the pods that metrics come from.
func pollingInterval(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, "helm upgrade datadog-agent ../../charts/kelpie --namespace datadog --values "+r.valuesFile()+" \\\n    "+r.image()+` \
    --set 'clusterAgent.env[0].name=DD_EXTERNAL_METRICS_PROVIDER_POLLING_INTERVAL' --set-string 'clusterAgent.env[0].value=15' \
    --set 'clusterAgent.env[1].name=DD_EXTERNAL_METRICS_PROVIDER_MAX_AGE' --set-string 'clusterAgent.env[1].value=45' \
    --set 'clusterAgent.env[2].name=DD_EXTERNAL_METRICS_PROVIDER_ROLLUP' --set-string 'clusterAgent.env[2].value=10' \
    --set 'agents.containers.agent.env[0].name=DD_DOGSTATSD_STREAM_SOCKET' --set 'agents.containers.agent.env[0].value=/var/run/datadog/dsd-stream.socket' \
    --set datadog.dogstatsd.originDetection=true --set datadog.dogstatsd.tagCardinality=orchestrator
kubectl rollout status -n datadog ds/datadog-agent --timeout=120s
kubectl rollout status -n datadog deploy/datadog-cluster-agent --timeout=120s`); err != nil {
		return err
	}
	out, err := r.sh.run(ctx, `kubectl exec -n datadog deploy/datadog-cluster-agent -- datadog-cluster-agent status`)
	if err != nil {
		return err
	}
	if err := contains(out, "polled every 15s"); err != nil {
		return fmt.Errorf("the cluster agent's status does not show the interval: %w", err)
	}
	out, err = r.sh.run(ctx, `kubectl exec -n datadog ds/datadog-agent -- agent status`)
	if err != nil {
		return err
	}
	if err := contains(out, "datadog-agent-backend"); err != nil {
		return err
	}
	return until(ctx, 60*time.Second, "a value after the upgrade", func(ctx context.Context) error {
		if v, _ := r.served(ctx); v == "-" {
			return fmt.Errorf("no value at %s", r.metricPath())
		}
		return nil
	})
}
