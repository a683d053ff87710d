package externalmetrics

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

func TestWhoMayReadAllIsAskedForOnce(t *testing.T) {
	const group = "external.metrics.k8s.io"
	metric := func(verb string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{User: proxied{&user.DefaultInfo{Name: "hpa"}}, Verb: verb, APIGroup: group, APIVersion: "v1beta1",
			Namespace: "team", Resource: "rps", ResourceRequest: true}
	}
	direct := metric("list")
	direct.User = &user.DefaultInfo{Name: "hpa"}
	other := metric("list")
	other.APIGroup = "apps"
	for _, c := range []struct {
		name    string
		ask     authorizer.AttributesRecord
		allowed map[string]bool // by "verb namespace/resource"
		broken  string          // a question that fails
		asked   []string
		want    authorizer.Decision
	}{
		{"all", metric("list"), map[string]bool{"list /*": true}, "", []string{"list /*"}, authorizer.DecisionAllow},
		{"all by another verb", metric("list"), map[string]bool{"get /*": true}, "", []string{"list /*", "list team/rps"}, authorizer.DecisionNoOpinion},
		{"the one", metric("list"), map[string]bool{"list team/rps": true}, "", []string{"list /*", "list team/rps"}, authorizer.DecisionAllow},
		{"none", metric("list"), nil, "", []string{"list /*", "list team/rps"}, authorizer.DecisionNoOpinion},
		{"the one, when the other fails", metric("list"), map[string]bool{"list team/rps": true}, "list /*", []string{"list /*", "list team/rps"}, authorizer.DecisionAllow},
		{"a direct caller", direct, map[string]bool{"list /*": true}, "", []string{"list team/rps"}, authorizer.DecisionNoOpinion},
		{"another group", other, map[string]bool{"list /*": true}, "", []string{"list team/rps"}, authorizer.DecisionNoOpinion},
		{"a path", authorizer.AttributesRecord{User: proxied{&user.DefaultInfo{}}, Verb: "get", Path: "/metrics"}, map[string]bool{"list /*": true}, "", []string{"get /"}, authorizer.DecisionNoOpinion},
	} {
		var asked []string
		w := wideFirst(authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			q := a.GetVerb() + " " + a.GetNamespace() + "/" + a.GetResource()
			if asked = append(asked, q); q == c.broken {
				return authorizer.DecisionNoOpinion, "", errors.New("no answer")
			}
			if c.allowed[q] {
				return authorizer.DecisionAllow, "", nil
			}
			return authorizer.DecisionNoOpinion, "", nil
		}))
		got, _, err := w.Authorize(t.Context(), c.ask)
		if err != nil || got != c.want {
			t.Errorf("%s: decision %v, %v; want %v", c.name, got, err, c.want)
		}
		if d := cmp.Diff(c.asked, asked); d != "" {
			t.Errorf("%s: asked (-want +got)\n%s", c.name, d)
		}
	}
}
