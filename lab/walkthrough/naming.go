package walkthrough

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// naming is row 7 again, for every way to name a metric: the controller reads
// each, with its capitals, and two autoscalers of one metric read one value. The
// gauge is sent from here, to the node's own port, and is always 7.
func naming(ctx context.Context, r *Run) error {
	address, err := r.sh.ask(ctx, `kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}'`)
	if err != nil {
		return err
	}
	gauge, err := r.sh.start(ctx, `while sleep 1; do echo -n 'Walk.Through.Gauge:7|g|#kube_namespace:test' > /dev/udp/`+address+`/8125; done`)
	if err != nil {
		return err
	}
	defer r.sh.stop(gauge)
	selectors := map[string]string{
		"labels": `{matchLabels: {kube_namespace: test}}`, "again": `{matchLabels: {kube_namespace: test}}`,
		"expression": `{matchExpressions: [{key: kube_namespace, operator: In, values: [test, other]}]}`, "alone": `{}`,
	}
	var text strings.Builder
	for name, selector := range selectors {
		text.WriteString(named(name, "Walk.Through.Gauge", selector))
	}
	names := []string{"labels", "again", "expression", "alone"}
	if r.opts.Mode == CRD {
		text.WriteString("{apiVersion: datadoghq.com/v1alpha1, kind: DatadogMetric, metadata: {name: walk-through, namespace: test}, spec: {query: 'avg:Walk.Through.Gauge{*}'}}\n---\n")
		text.WriteString(named("object", "datadogmetric@test:walk-through", "{}"))
		text.WriteString(named("capitals", "DatadogMetric@TEST:Walk-Through", "{}"))
		names = append(names, "object", "capitals")
	}
	if _, err := r.sh.run(ctx, "kubectl apply -f - <<'OBJECTS'\n"+text.String()+"OBJECTS"); err != nil {
		return err
	}
	for _, name := range names {
		if err := until(ctx, 90*time.Second, "autoscaler named-"+name+" to read 7", func(ctx context.Context) error {
			out, err := r.sh.ask(ctx, `kubectl get hpa named-`+name+` -n test -o jsonpath='{.status.currentMetrics[0].external.current.averageValue} {range .status.conditions[*]}{.message}. {end}'`)
			if err != nil {
				return err
			}
			if value, said, _ := strings.Cut(out, " "); value != "7" {
				return fmt.Errorf("it reads %q: %s", value, said)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	out, err := r.sh.run(ctx, `kubectl get hpa -n test
kubectl api-resources --api-group external.metrics.k8s.io 2>&1`)
	if err != nil {
		return err
	}
	if strings.Contains(strings.ToLower(out), "unable") || strings.Contains(strings.ToLower(out), "error") {
		return errors.New("kubectl cannot discover external metrics without a complaint")
	}
	_, err = r.sh.run(ctx, `kubectl delete -n test hpa,deployment -l named=for-this
kubectl delete -n test datadogmetric walk-through --ignore-not-found`)
	return err
}

// named is an autoscaler of a metric, and a target of its own without pods: the
// controller refuses two autoscalers of one target.
func named(name, metric, selector string) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: named-%[1]s, namespace: test, labels: {named: for-this}}, spec: {replicas: 1,
  selector: {matchLabels: {app: named-%[1]s}}, template: {metadata: {labels: {app: named-%[1]s}},
  spec: {nodeSelector: {kelpie.dev/no-node: "true"}, containers: [{name: none, image: none}]}}}}
---
{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: named-%[1]s, namespace: test, labels: {named: for-this}}, spec: {
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: named-%[1]s}, minReplicas: 1, maxReplicas: 2,
  metrics: [{type: External, external: {metric: {name: "%[2]s", selector: %[3]s}, target: {type: AverageValue, averageValue: "100"}}}]}}
---
`, name, metric, selector)
}
