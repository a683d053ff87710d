package externalmetrics

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// How long who was allowed what is remembered. Autoscalers read each metric every
// 15 s; the library's own cache of 10 s would have each read wait for the API
// server. The first is Kubernetes' default for webhooks that authorize
// (--authorization-webhook-cache-authorized-ttl of its API server).
const (
	allowFresh = 5 * time.Minute
	// allowAtMost bounds how long a replica that cannot ask serves on.
	allowAtMost = 30 * time.Minute
	// askAgain bounds how long a caller whom something else speaks for waits for an
	// answer, and askRest is how long nobody waits after one did not come.
	askAgain = time.Second
	askRest  = 10 * time.Second

	// allowMost entries of about 200 bytes: ten thousand metrics and several readers of each.
	allowMost = 1 << 16
)

// A memory of whom an authorizer allowed what. Only what it allowed is kept.
type memory struct {
	next    authorizer.Authorizer
	fresh   time.Duration // for which nobody is asked again
	now     func() time.Time
	allowed *cache.LRUExpireCache     // of when, by sha256 of the question
	resting atomic.Pointer[time.Time] // until when the API server is not asked where something else speaks for the caller; nil before
	answers *prometheus.CounterVec
}

// remember wraps an authorizer that asks the API server. While that does not
// answer, two things speak for a caller: that he was allowed the same within
// allowAtMost, and that the API server's proxy brings his request, as it asks the
// same question before it does. Of whoever can pose as that proxy nothing is kept
// back anyway: he may call himself system:masters.
func remember(next authorizer.Authorizer, fresh time.Duration, now func() time.Time, answers *prometheus.CounterVec) authorizer.Authorizer {
	if answers == nil {
		answers = newAuthorizations()
	}
	m := &memory{next: next, fresh: fresh, now: now, allowed: cache.NewLRUExpireCacheWithClock(allowMost, clock(now)), answers: answers}
	return authorizer.AuthorizerFunc(m.authorize)
}

func newAuthorizations() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_external_metrics_authorizations_total",
		Help: "Requests that were allowed, by who said so: the API server when asked, memory of that, or either that or its proxy while it does not answer."}, []string{"by"})
}

type clock func() time.Time

func (c clock) Now() time.Time { return c() }

func (m *memory) authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	key, ok := question(a)
	if !ok {
		return m.next.Authorize(ctx, a)
	}
	at, known := m.allowed.Get(key)
	now := m.now()
	if known && now.Sub(at.(time.Time)) < m.fresh {
		m.answers.WithLabelValues("memory").Inc()
		return authorizer.DecisionAllow, "", nil
	}
	_, brought := a.GetUser().(proxied)
	spoken := known || brought
	ask := ctx
	if spoken {
		if until := m.resting.Load(); until != nil && now.Before(*until) {
			return m.unasked()
		}
		short, cancel := context.WithTimeout(ctx, askAgain)
		defer cancel()
		ask = short
	}
	decision, reason, err := m.next.Authorize(ask, a)
	switch {
	case err != nil && ctx.Err() != nil:
		// The caller left: that says nothing of the API server. Who lost a right
		// would otherwise keep it, by giving up a request now and then.
	case err != nil && spoken && decision != authorizer.DecisionDeny:
		m.resting.Store(new(m.now().Add(askRest)))
		return m.unasked()
	case err != nil:
	case decision == authorizer.DecisionAllow:
		m.allowed.Add(key, m.now(), allowAtMost)
		m.answers.WithLabelValues("apiserver").Inc()
	case known:
		m.allowed.Remove(key)
	}
	return decision, reason, err // the request's own filter words it
}

func (m *memory) unasked() (authorizer.Decision, string, error) {
	m.answers.WithLabelValues("unanswered").Inc()
	return authorizer.DecisionAllow, "", nil
}

// proxied is a caller whose request the API server's proxy brings.
type proxied struct{ user.Info }

// markProxied has such callers known as such by the authorizer: it looks for them
// first, by the same certificate and headers.
func markProxied(info *genericapiserver.AuthenticationInfo) {
	h := info.RequestHeaderConfig
	if h == nil || info.Authenticator == nil {
		return
	}
	proxy := group.NewAuthenticatedGroupAdder(headerrequest.NewDynamicVerifyOptionsSecure(h.CAContentProvider.VerifyOptions, h.AllowedClientNames,
		h.UsernameHeaders, h.UIDHeaders, h.GroupHeaders, h.ExtraHeaderPrefixes))
	next := info.Authenticator
	info.Authenticator = authenticator.RequestFunc(func(req *http.Request) (*authenticator.Response, bool, error) {
		resp, ok, err := proxy.AuthenticateRequest(req)
		if err != nil || !ok {
			return next.AuthenticateRequest(req) // an error of the first is one of this, too
		}
		resp.User = proxied{resp.User}
		return resp, true, nil
	})
}

// question identifies all that an authorizer may judge by. Only reads of a
// resource are worth remembering.
func question(a authorizer.Attributes) (key [sha256.Size]byte, ok bool) {
	u := a.GetUser()
	if u == nil || !a.IsResourceRequest() || !a.IsReadOnly() {
		return key, false
	}
	fields, err := a.GetFieldSelector()
	if err != nil || len(fields) > 0 {
		return key, false
	}
	labels, err := a.GetLabelSelector()
	if err != nil {
		return key, false
	}
	q := struct {
		User, UID, Verb, Group, Version, Namespace, Resource, Subresource, Name string

		Groups, Labels []string
		Extra          map[string][]string
	}{
		User: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups(), Extra: u.GetExtra(), Verb: a.GetVerb(), Group: a.GetAPIGroup(), Version: a.GetAPIVersion(),
		Namespace: a.GetNamespace(), Resource: a.GetResource(), Subresource: a.GetSubresource(), Name: a.GetName(),
	}
	for _, l := range labels {
		q.Labels = append(q.Labels, l.String())
	}
	text, err := json.Marshal(q) // sorts Extra
	return sha256.Sum256(text), err == nil
}
