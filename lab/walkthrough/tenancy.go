package walkthrough

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// teams is row 13: what a team may write is Kubernetes' to say, and what its
// autoscalers may read is the cluster agent's policy's.
func teams(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `kubectl create namespace team-b`); err != nil {
		return err
	}
	if err := r.own(ctx, "team-b"); err != nil {
		return err
	}
	// The role of examples/rbac, for this team.
	if _, err := r.sh.run(ctx, `sed 's/team-web/team-b/g' ../rbac/team.yaml | kubectl apply -f -
sed 's/namespace: test}/namespace: team-b}/' datadogmetric.yaml | kubectl apply --as someone --as-group team-b -f -
kubectl delete datadogmetric --all -n team-b --as someone --as-group team-b`); err != nil {
		return err
	}
	out, err := r.sh.run(ctx, `kubectl apply --as someone --as-group team-b -f datadogmetric.yaml 2>&1 && exit 9 || [ $? = 1 ]`)
	if err != nil {
		return fmt.Errorf("a team wrote a DatadogMetric of another namespace: %w", err)
	}
	if err := contains(out, "forbidden", `"someone"`, `namespace "test"`); err != nil {
		return err
	}
	if err := r.anotherTeamsMetric(ctx); err != nil {
		return errors.Join(err, errors.New(r.why(ctx)))
	}
	_, err = r.sh.run(ctx, `helm rollback datadog-agent -n datadog
`+clusterAgentReady+`
kubectl delete namespace team-b --wait=false`)
	return errors.Join(err, r.recovers(ctx))
}

// anotherTeamsMetric: team-b's autoscaler names the metric of namespace test. In
// mode A, where a metric belongs to nobody, the tags that it names do.
func (r *Run) anotherTeamsMetric(ctx context.Context) error {
	if _, err := r.sh.run(ctx, "helm upgrade datadog-agent ../../charts/kelpie --namespace datadog --reuse-values \\\n    "+r.image()+` \
    --set clusterAgent.policy.mode=namespaced \
    --set 'clusterAgent.policy.namespaces[0].match=*' --set 'clusterAgent.policy.namespaces[0].scope[0]=kube_namespace:%%namespace%%'
`+clusterAgentReady); err != nil {
		return err
	}
	file := "hpa-" + string(r.opts.Mode) + ".yaml"
	if _, err := r.sh.run(ctx, `kubectl create deployment test-metric-app -n team-b --image $REGISTRY/test-metric-app:latest
sed 's/namespace: test}/namespace: team-b}/' `+file+` | kubectl apply --as someone --as-group team-b -f -`); err != nil {
		return err
	}
	for _, c := range []struct {
		place, command string
		want           []string
	}{
		{"kubectl describe hpa", `kubectl describe hpa test-metric-hpa -n team-b`, []string{"Forbidden", "policy"}},
		{"kelpie doctor", `kelpie doctor hpa/test-metric-hpa -n team-b && exit 9 || [ $? = 1 ]`, []string{"policy", "mend:"}},
	} {
		if err := until(ctx, 60*time.Second, c.place+" to name the policy", func(ctx context.Context) error {
			out, err := r.sh.ask(ctx, c.command)
			if err != nil {
				return err
			}
			return contains(out, c.want...)
		}); err != nil {
			return err
		}
	}
	_, err := r.sh.run(ctx, `kubectl describe hpa test-metric-hpa -n team-b | tail -12; kelpie doctor hpa/test-metric-hpa -n team-b || true`)
	if err != nil {
		return err
	}
	// The metric's own namespace reads it on.
	return until(ctx, 30*time.Second, "the owner's autoscaler to read on", func(ctx context.Context) error {
		if v, _ := r.served(ctx); v == "-" {
			return errors.New("no value at " + r.metricPath())
		}
		return nil
	})
}
