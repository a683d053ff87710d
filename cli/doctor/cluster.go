package doctor

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kelpie.dev/kelpie/cli/release"
)

func (e *exam) clusterReachable(ctx context.Context) finding {
	var v struct {
		GitVersion string `json:"gitVersion"`
	}
	server := e.Access.APIServer()
	if err := server.JSON(ctx, "/version", &v); err != nil {
		seen := fmt.Sprintf("%s: %v", server.URL, err)
		if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) {
			return broken(seen, "the API server does not accept your credentials", "log in again, or choose another --context; kubectl auth whoami shows who you are")
		}
		return broken(seen, "the API server does not answer", "check the network or VPN, and the address in the kubeconfig: kubectl cluster-info")
	}
	return ok("%s, Kubernetes %s", server.URL, v.GitVersion)
}

func (e *exam) installationFound(ctx context.Context) finding {
	rel, err := release.Find(ctx, e.Objects, e.KelpieNamespace)
	var none *release.NotFoundError
	var several *release.AmbiguousError
	switch {
	case errors.As(err, &none):
		mend := "install the chart (helm install datadog-agent charts/kelpie --namespace datadog …), or say where it is: --kelpie-namespace"
		return broken(none.Error(), "Kelpie is not installed here, or was looked for in the wrong place", mend)
	case errors.As(err, &several):
		return broken(several.Error(), "it is not clear which installation is meant", "give --kelpie-namespace")
	case err != nil:
		return broken(err.Error(), "the installation cannot be looked up", "get the right to list deployments, daemonsets and statefulsets in Kelpie's namespace, and give it: --kelpie-namespace")
	}
	e.rel = rel
	where := "metrics at " + rel.QueryURL()
	if rel.Backend != nil {
		where = "with its own backend"
	}
	return ok("release %s in namespace %s, %s", rel.Instance, rel.Namespace, where)
}
