package walkthrough

import (
	"context"
	"time"
)

// podTags proves that a metric that comes over the Unix socket bears the tags of
// its pod, which the kernel and the kubelet name; the application sends none of
// these. Row 11's upgrade has switched origin detection on.
func podTags(ctx context.Context, r *Run) error {
	if _, err := r.sh.run(ctx, `sed "s#<YOUR_REGISTRY>#$REGISTRY#" ../../lab/walkthrough/testdata/socket-app.yaml | kubectl apply -f -
kubectl wait -n test pod/socket-app --for=condition=Ready --timeout=60s
kubectl get --raw /api/v1/namespaces/test/pods/socket-app:5000/proxy/`); err != nil {
		return err
	}
	const query = `sum:flask.request.rate{pod_name:socket-app,kube_container_name:web,service:socket-service,kube_namespace:test}`
	if err := until(ctx, 25*time.Second, "the metric with its pod's tags", func(ctx context.Context) error {
		_, err := r.newest(ctx, query)
		return err
	}); err != nil {
		return err
	}
	_, err := r.sh.run(ctx, `kelpie query '`+query+`' --from 1m
kubectl delete -n test pod/socket-app --now`)
	return err
}
