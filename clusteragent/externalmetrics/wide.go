package externalmetrics

import (
	"context"

	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/metrics/pkg/apis/external_metrics"
)

// wideFirst authorizes who may read every external metric by that right alone,
// and asks inner about the one metric of everybody else.
//
// The Kubernetes API server is asked for each pair of a caller and a metric: with
// ten thousand metrics that is more than its client lets through when they are
// first read. The HPA controller may read them all, and of that there is one answer.
// It is believed of callers that the API server's proxy brings alone: of them the
// one metric was asked there, of an authorizer that may refuse it in spite of all.
func wideFirst(inner authorizer.Authorizer) authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if _, brought := a.GetUser().(proxied); brought && a.IsResourceRequest() && a.GetAPIGroup() == external_metrics.GroupName && a.GetNamespace() != "" {
			decision, reason, err := inner.Authorize(ctx, authorizer.AttributesRecord{
				User: a.GetUser(), Verb: a.GetVerb(), APIGroup: a.GetAPIGroup(), APIVersion: a.GetAPIVersion(), Resource: "*", ResourceRequest: true,
			})
			if err == nil && decision == authorizer.DecisionAllow {
				return decision, reason, nil
			}
		}
		return inner.Authorize(ctx, a)
	})
}
