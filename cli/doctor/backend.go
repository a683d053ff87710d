package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kelpie.dev/kelpie/cli/release"
	"kelpie.dev/kelpie/datadog"
)

func (e *exam) backendReady(ctx context.Context) finding {
	b := e.rel.Backend
	if b == nil {
		return skipped("no backend here: metrics are at %s", e.rel.QueryURL())
	}
	name := fmt.Sprintf("StatefulSet %s/%s", b.Namespace, b.Name)
	const stopped = "the backend is stopped: no metric is stored, and no value can be read"
	if b.Spec.Replicas != nil && *b.Spec.Replicas == 0 {
		return broken(name+" has spec.replicas 0", stopped, fmt.Sprintf("kubectl -n %s scale statefulset %s --replicas=1", b.Namespace, b.Name))
	}
	pods, err := e.rel.Pods(ctx, e.Objects, b.Spec.Selector)
	if err != nil {
		return skipped("%s: %v", name, err)
	}
	if readyCount(pods) == 0 {
		text, pod := troubles(pods)
		if text == "" {
			text = "it has no pod"
		}
		return broken(name+": "+text, "the backend does not run: no metric is stored, and no value can be read", lookAt(b.Namespace, "statefulset", b.Name, pod))
	}
	// Any answer will do here, a refusal included: the keys come later. Its own
	// keys, where they can be read, only keep the question out of its log.
	keys, _ := e.rel.KeysOf(ctx, e.Objects, &b.Spec.Template.Spec)
	api, err := e.rel.API(e.Access, keys)
	if err != nil {
		return skipped("%s: %v", name, err)
	}
	defer api.CloseIdle()
	err = api.Validate(ctx)
	var answered *datadog.APIError
	switch {
	case err == nil, errors.As(err, &answered):
		return ok("%s is ready and answers", name)
	case apierrors.IsForbidden(err):
		return skipped("%s is ready; you may not reach it: %v", name, err)
	default:
		return broken(fmt.Sprintf("%s is ready, but Service %s/%s does not answer: %v", name, b.Namespace, b.Spec.ServiceName, err),
			"the backend's query API cannot be reached",
			fmt.Sprintf("kubectl -n %s get endpointslices -l kubernetes.io/service-name=%s; kubectl -n %s logs statefulset/%s", b.Namespace, b.Spec.ServiceName, b.Namespace, b.Name))
	}
}

// refused reports whether err says that a key is not accepted.
func refused(err error) bool {
	var api *datadog.APIError
	return errors.As(err, &api) && (api.Status == http.StatusForbidden || api.Status == http.StatusUnauthorized)
}

// holder says who decides which keys are good.
func (e *exam) holder() string {
	if e.rel.Backend != nil {
		return "the backend"
	}
	return "Datadog at " + e.rel.QueryURL()
}

// mendKey says how a key that origin holds is put right.
func (e *exam) mendKey(key release.Key, restart string) string {
	if e.rel.Backend == nil {
		return fmt.Sprintf("put a valid key into %s, then %s", key, restart)
	}
	return fmt.Sprintf("put the key that the backend was started with into %s, then %s; or, if the new key is right, restart the backend to take it: kubectl -n %s rollout restart statefulset %s",
		key, restart, e.rel.Namespace, e.rel.Backend.Name)
}

func (e *exam) intakeKey(ctx context.Context) finding {
	if e.rel.Agents == nil {
		return skipped("the installation has no node agents")
	}
	ds := e.rel.Agents
	keys, err := e.rel.KeysOf(ctx, e.Objects, &ds.Spec.Template.Spec)
	if err != nil {
		return e.noSecret(err)
	}
	restart := fmt.Sprintf("kubectl -n %s rollout restart daemonset %s", ds.Namespace, ds.Name)
	if !keys.API.Set() {
		return broken("the agents have no API key: "+keys.API.String(), "without an API key the intake accepts nothing",
			"set datadog.apiKeyExistingSecret in the values to a Secret with a key api-key")
	}
	api, err := e.rel.API(e.Access, keys)
	if err != nil {
		return skipped("%v", err)
	}
	defer api.CloseIdle()
	switch err := api.Validate(ctx); {
	case refused(err):
		return broken(fmt.Sprintf("%s refuses the agents' API key: %v", e.holder(), err), "wrong API key in "+keys.API.String(), e.mendKey(keys.API, restart))
	case err != nil:
		return skipped("the API key cannot be tried: %v", err)
	}
	return ok("%s accepts the agents' API key (%s)", e.holder(), keys.API)
}

// noSecret is the finding when a Secret cannot be read: broken when it is not
// there, as pods need it.
func (e *exam) noSecret(err error) finding {
	if apierrors.IsNotFound(err) {
		return broken(err.Error(), "the Secret that the pods take their keys from does not exist",
			fmt.Sprintf("kubectl -n %s create secret generic … --from-literal api-key=… --from-literal app-key=…, with the name above", e.rel.Namespace))
	}
	return skipped("the keys cannot be tried: %v", err)
}

func (e *exam) queryKeys(ctx context.Context) finding {
	d := e.rel.ClusterAgent
	keys, err := e.rel.KeysOf(ctx, e.Objects, &d.Spec.Template.Spec)
	if err != nil {
		return e.noSecret(err)
	}
	for _, k := range []release.Key{keys.API, keys.App} {
		if !k.Set() {
			return broken("the cluster agent lacks a key: "+k.String(), "queries need an API key and an application key",
				"set datadog.appKeyExistingSecret (and apiKeyExistingSecret) in the values to a Secret with the keys app-key and api-key")
		}
	}
	api, err := e.rel.API(e.Access, keys)
	if err != nil {
		return skipped("%v", err)
	}
	// The answer does not matter, only whether there is one.
	_, err = api.Query(ctx, []string{"avg:kelpie.doctor{*}"}, e.now.Add(-time.Minute), e.now)
	var answered *datadog.APIError
	switch {
	case refused(err):
		defer api.CloseIdle()
		restart := fmt.Sprintf("kubectl -n %s rollout restart deployment %s", d.Namespace, d.Name)
		kind, key := "application key", keys.App
		if refused(api.Validate(ctx)) {
			kind, key = "API key", keys.API
		}
		return broken(fmt.Sprintf("%s refuses the cluster agent's keys: %v", e.holder(), err), "wrong "+kind+" in "+key.String(), e.mendKey(key, restart))
	case errors.As(err, &answered) && answered.Status >= http.StatusInternalServerError:
		return broken(err.Error(), "the query API is up and fails", "look at the backend's log: kubectl -n "+e.rel.Namespace+" logs statefulset/"+e.backendName())
	case err != nil && answered == nil:
		return skipped("the keys cannot be tried: %v", err)
	}
	e.api = api
	return ok("%s accepts the cluster agent's keys (%s; %s)", e.holder(), keys.API, keys.App)
}

func (e *exam) backendName() string {
	if e.rel.Backend == nil {
		return ""
	}
	return e.rel.Backend.Name
}
