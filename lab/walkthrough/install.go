package walkthrough

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
)

func createNamespace(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `kubectl create namespace datadog`); err != nil {
		return err
	}
	return r.own(ctx, "datadog")
}

func createKeys(ctx context.Context, r *Run) error {
	_, err := r.sh.run(ctx, `kubectl create secret generic datadog-secret -n datadog --from-literal api-key=$API_KEY --from-literal app-key=$APP_KEY`)
	return err
}

// valuesFile is the user's, as it is.
func (r *Run) valuesFile() string { return "values-" + string(r.opts.Mode) + ".yaml" }

// image is the only thing that a chart of ours cannot know here: where the
// cluster at hand pulls the image from.
func (r *Run) image() string {
	return fmt.Sprintf("--set kelpie.image.repository=$REGISTRY/kelpie --set kelpie.image.tag=%s", r.opts.Tag)
}

func install(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, "helm install datadog-agent ../../charts/kelpie --namespace datadog --values "+r.valuesFile()+" \\\n    "+r.image()); err != nil {
		return err
	}
	if _, err := r.sh.run(ctx, `kubectl rollout status -n datadog ds/datadog-agent --timeout=180s
kubectl rollout status -n datadog sts/datadog-agent-backend --timeout=180s
kubectl rollout status -n datadog deploy/datadog-cluster-agent --timeout=180s
kubectl get pods -n datadog`); err != nil {
		return errors.Join(err, r.whyNotReady(ctx))
	}
	return r.oneAgentPerNode(ctx)
}

// whyNotReady gathers what a person would look at next.
func (r *Run) whyNotReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	out, _ := r.sh.ask(ctx, `kubectl get pods -A -o wide; kubectl get events -A --sort-by=.lastTimestamp | tail -20
for p in $(kubectl get pods -n datadog -o name); do echo "== $p"; kubectl logs -n datadog $p --all-containers --tail=15 || true; done`)
	return fmt.Errorf("the cluster says:\n%s", tail(out, 8000))
}

func (r *Run) oneAgentPerNode(ctx context.Context) error {
	var nodes, pods struct{ Items []struct{} }
	if err := r.sh.askJSON(ctx, `kubectl get nodes -o json`, &nodes); err != nil {
		return err
	}
	if err := r.sh.askJSON(ctx, `kubectl get pods -n datadog -l app=datadog-agent -o json`, &pods); err != nil {
		return err
	}
	if len(nodes.Items) != len(pods.Items) {
		return fmt.Errorf("%d agent pods with label app=datadog-agent on %d nodes, want one on each", len(pods.Items), len(nodes.Items))
	}
	return nil
}

// apiService is read once, without retry: Ready must mean that it serves.
func apiService(ctx context.Context, r *Run) error {
	out, err := r.sh.run(ctx, `kubectl get apiservice v1beta1.external.metrics.k8s.io`)
	if err != nil {
		return err
	}
	if err := contains(out, "datadog/datadog-cluster-agent"); err != nil {
		return err
	}
	var svc struct {
		Spec struct {
			InsecureSkipTLSVerify bool
			CABundle              string
		}
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := r.sh.askJSON(ctx, `kubectl get apiservice v1beta1.external.metrics.k8s.io -o json`, &svc); err != nil {
		return err
	}
	available := "no condition Available"
	for _, c := range svc.Status.Conditions {
		if c.Type == "Available" {
			available = c.Status + " " + c.Message
		}
	}
	if !strings.HasPrefix(available, "True") {
		return fmt.Errorf("the APIService is not available at the first look: %s", available)
	}
	if svc.Spec.InsecureSkipTLSVerify {
		return errors.New("insecureSkipTLSVerify is set")
	}
	pem, err := base64.StdEncoding.DecodeString(svc.Spec.CABundle)
	if err != nil || !strings.Contains(string(pem), "BEGIN CERTIFICATE") {
		return fmt.Errorf("caBundle holds no certificate: %q", svc.Spec.CABundle)
	}
	return r.noRestarts(ctx)
}

func (r *Run) noRestarts(ctx context.Context) error {
	var pods struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct{ ContainerStatuses []struct{ RestartCount int } }
		}
	}
	if err := r.sh.askJSON(ctx, `kubectl get pods -n datadog -o json`, &pods); err != nil {
		return err
	}
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			if c.RestartCount > 0 {
				return fmt.Errorf("pod %s restarted %d times", p.Metadata.Name, c.RestartCount)
			}
		}
	}
	return nil
}
