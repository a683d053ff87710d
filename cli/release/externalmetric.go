package release

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ExternalValue is a value as autoscalers get it.
type ExternalValue struct {
	Value     string    `json:"value"` // a Kubernetes quantity
	Timestamp time.Time `json:"timestamp"`
}

// ExternalMetric asks for a metric as the HPA controller does. It returns nil
// without an error when the provider has no item.
func ExternalMetric(ctx context.Context, server Endpoint, namespace, name string, sel *metav1.LabelSelector) (*ExternalValue, error) {
	// The controller's client lower-cases the name.
	path := "/apis/external.metrics.k8s.io/v1beta1/namespaces/" + url.PathEscape(namespace) + "/" + url.PathEscape(strings.ToLower(name))
	if sel != nil {
		s, err := metav1.LabelSelectorAsSelector(sel)
		if err != nil {
			return nil, fmt.Errorf("read the selector of metric %s: %w", name, err)
		}
		if !s.Empty() {
			path += "?" + url.Values{"labelSelector": {s.String()}}.Encode()
		}
	}
	var list struct {
		Items []ExternalValue `json:"items"`
	}
	if err := server.JSON(ctx, path, &list); err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, nil
	}
	return &list.Items[0], nil
}
