package walkthrough

import (
	"context"
	"fmt"
	"time"
)

// podTags proves that a metric bears the tags of its pod over each socket: the
// kernel or the client's container id says which container sent it, the kubelet
// what that is; the application sends none of these. Row 11's upgrade has
// switched origin detection on.
func podTags(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `sed "s#<YOUR_REGISTRY>#$REGISTRY#" ../../lab/walkthrough/testdata/socket-app.yaml | kubectl apply -f -
kubectl wait -n test pod/socket-app --for=condition=Ready --timeout=60s`); err != nil {
		return err
	}
	for i, container := range []string{"datagram", "stream", "udp"} {
		if _, err := r.sh.run(ctx, fmt.Sprintf(`kubectl get --raw /api/v1/namespaces/test/pods/socket-app:%d/proxy/`, 5000+i)); err != nil {
			return err
		}
		query := `sum:flask.request.rate{pod_name:socket-app,kube_container_name:` + container + `,service:socket-service,kube_namespace:test,short_image:test-metric-app}`
		if err := until(ctx, 25*time.Second, "the metric of container "+container+" with its pod's tags", func(ctx context.Context) error {
			_, err := r.newest(ctx, query)
			return err
		}); err != nil {
			return err
		}
	}
	_, err := r.sh.run(ctx, `kelpie query 'sum:flask.request.rate{pod_name:socket-app} by {kube_container_name}' --from 1m
kubectl delete -n test pod/socket-app --now`)
	return err
}
