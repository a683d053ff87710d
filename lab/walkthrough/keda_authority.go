package walkthrough

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// twoAuthorities has KEDA's operator write caBundle, as it does by default, and
// then not again. Whatever happens between, ours is the one that stays.
func twoAuthorities(ctx context.Context, r *Run) error {
	since := time.Now().UTC().Format(time.RFC3339)
	if err := r.patchesAPIService(ctx, true); err != nil {
		return err
	}
	const watch = 20 * time.Second
	out, err := r.sh.ask(ctx, fmt.Sprintf(`timeout %d kubectl get apiservice v1beta1.external.metrics.k8s.io -w -o jsonpath='{.spec.caBundle}{"\n"}' | uniq | wc -l || true`, int(watch.Seconds())))
	if err != nil {
		return err
	}
	turns, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		return fmt.Errorf("count who had caBundle: %w", err)
	}
	r.sayf("caBundle was written %d times in %s", turns, watch)
	// Fewer: KEDA does not write it any more, and the docs are wrong. More: the two
	// do nothing else.
	if turns < 2 || turns > 30 {
		return fmt.Errorf("caBundle was written %d times in %s, want 2 to 30", turns, watch)
	}
	out, err = r.sh.run(ctx, `kubectl get apiservice v1beta1.external.metrics.k8s.io
kubectl logs -n datadog deploy/datadog-cluster-agent --since-time=`+since+` | grep -i -e caBundle -e regist`)
	if err != nil {
		return err
	}
	if err := contains(out, `field manager \"keda\"`, "--enable-apiservice-patching=false"); err != nil {
		return fmt.Errorf("the cluster agent does not say who writes caBundle: %w", err)
	}
	if err := r.patchesAPIService(ctx, false); err != nil {
		return err
	}
	return until(ctx, time.Minute, "our authority to be the registration's again", func(ctx context.Context) error {
		return apiService(ctx, r)
	})
}

// patchesAPIService restarts KEDA's operator with or without its habit.
func (r *Run) patchesAPIService(ctx context.Context, on bool) error {
	_, err := r.sh.run(ctx, fmt.Sprintf(`kubectl -n keda get deployment keda-operator -o yaml | sed 's#enable-apiservice-patching=.*#enable-apiservice-patching=%t#' | kubectl apply -f - 2>&1 | grep -v Warning
kubectl -n keda rollout status deployment/keda-operator --timeout=120s`, on))
	if err != nil {
		return errors.Join(err, r.whyKEDA(ctx))
	}
	return nil
}
