package externalmetrics

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
	"unsafe"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// TestAllowedIsRemembered is the story of one reader: asked about once, then not
// for five minutes, served on while the API server is away, refused once it says so.
func TestAllowedIsRemembered(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	var asked int
	answer, fault := authorizer.DecisionAllow, error(nil)
	a := remember(authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		asked++
		if fault != nil {
			return authorizer.DecisionNoOpinion, "", fault
		}
		return answer, "", nil
	}), allowFresh, func() time.Time { return at }, nil)
	hpa := read("rps", user.DefaultInfo{Name: "system:serviceaccount:kube-system:horizontal-pod-autoscaler"})

	brought := read("rps", user.DefaultInfo{Name: "mallory"})
	brought.User = proxied{brought.User}
	away := errors.New("connection refused")
	steps := []struct {
		what    string
		after   time.Duration
		q       authorizer.AttributesRecord
		answer  authorizer.Decision
		fault   error
		asked   int
		want    authorizer.Decision
		wantErr bool
	}{
		{"the first read asks", 0, hpa, authorizer.DecisionAllow, nil, 1, authorizer.DecisionAllow, false},
		{"the next does not", 15 * time.Second, hpa, authorizer.DecisionDeny, nil, 0, authorizer.DecisionAllow, false},
		{"another caller is not meant", 0, read("rps", user.DefaultInfo{Name: "eve"}), authorizer.DecisionNoOpinion, nil, 1, authorizer.DecisionNoOpinion, false},
		{"nor another of his groups", 0, read("rps", user.DefaultInfo{Name: hpa.User.GetName(), Groups: []string{"g"}}), authorizer.DecisionDeny, nil, 1, authorizer.DecisionDeny, false},
		{"nor another metric", 0, read("queue", user.DefaultInfo{Name: hpa.User.GetName()}), authorizer.DecisionNoOpinion, nil, 1, authorizer.DecisionNoOpinion, false},
		{"a refusal is not remembered", 0, read("queue", user.DefaultInfo{Name: hpa.User.GetName()}), authorizer.DecisionAllow, nil, 1, authorizer.DecisionAllow, false},
		{"after five minutes it is asked again, in vain", 5 * time.Minute, hpa, authorizer.DecisionAllow, away, 1, authorizer.DecisionAllow, false},
		{"and nobody waits for a while", 5 * time.Second, hpa, authorizer.DecisionAllow, away, 0, authorizer.DecisionAllow, false},
		{"whom nobody knows is an error meanwhile", 0, read("rps", user.DefaultInfo{Name: "eve"}), authorizer.DecisionAllow, away, 1, authorizer.DecisionNoOpinion, true},
		{"then it is asked again", 6 * time.Second, hpa, authorizer.DecisionAllow, away, 1, authorizer.DecisionAllow, false},
		{"and never served on for longer than half an hour", 26 * time.Minute, hpa, authorizer.DecisionAllow, away, 1, authorizer.DecisionNoOpinion, true},
		{"it is back", 0, hpa, authorizer.DecisionAllow, nil, 1, authorizer.DecisionAllow, false},
		{"a right that was taken away is gone after five minutes", 5 * time.Minute, hpa, authorizer.DecisionNoOpinion, nil, 1, authorizer.DecisionNoOpinion, false},
		{"for good", 0, hpa, authorizer.DecisionNoOpinion, away, 1, authorizer.DecisionNoOpinion, true},
		{"the proxy speaks for a new caller", 0, brought, authorizer.DecisionAllow, away, 1, authorizer.DecisionAllow, false},
		{"without a wait", 0, brought, authorizer.DecisionAllow, away, 0, authorizer.DecisionAllow, false},
		{"but an answer goes before", 11 * time.Second, brought, authorizer.DecisionNoOpinion, nil, 1, authorizer.DecisionNoOpinion, false},
	}
	for _, s := range steps {
		at = at.Add(s.after)
		answer, fault, asked = s.answer, s.fault, 0
		got, _, err := a.Authorize(t.Context(), s.q)
		if got != s.want || (err != nil) != s.wantErr || asked != s.asked {
			t.Fatalf("%s: decision %v, error %v, asked %d times; want %v, error %v, %d", s.what, got, err, asked, s.want, s.wantErr, s.asked)
		}
	}
}

// TestWhoLeavesIsNoOutage: a caller whose right was taken away keeps it no longer
// by breaking off the request that would find out.
func TestWhoLeavesIsNoOutage(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	answer := authorizer.DecisionAllow
	a := remember(authorizer.AuthorizerFunc(func(ctx context.Context, _ authorizer.Attributes) (authorizer.Decision, string, error) {
		return answer, "", ctx.Err()
	}), allowFresh, func() time.Time { return at }, nil)
	ci := read("rps", user.DefaultInfo{Name: "ci"})
	if got, _, err := a.Authorize(t.Context(), ci); got != authorizer.DecisionAllow || err != nil {
		t.Fatalf("with the right: decision %v, error %v", got, err)
	}
	at, answer = at.Add(allowFresh), authorizer.DecisionNoOpinion
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if got, _, err := a.Authorize(gone, ci); got == authorizer.DecisionAllow || err == nil {
		t.Errorf("whoever left: decision %v, error %v; want an error", got, err)
	}
	if got, _, err := a.Authorize(t.Context(), ci); got == authorizer.DecisionAllow || err != nil {
		t.Errorf("without the right: decision %v, error %v; want it asked and refused", got, err)
	}
}

// TestRestEndsAfterClockStep: nobody is let in unasked for an hour because the
// clock was set back by one.
func TestRestEndsAfterClockStep(t *testing.T) {
	at, away, asked := time.Now(), errors.New("connection refused"), 0
	a := remember(authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		asked++
		return authorizer.DecisionNoOpinion, "", away
	}), allowFresh, func() time.Time { return at }, nil)
	brought := read("rps", user.DefaultInfo{Name: "hpa"})
	brought.User = proxied{brought.User}
	for i, step := range []struct{ run, wall time.Duration }{{}, {askRest + time.Second, -time.Hour}} {
		at = stepped(at, step.run, step.wall)
		if got, _, err := a.Authorize(t.Context(), brought); got != authorizer.DecisionAllow || err != nil || asked != i+1 {
			t.Errorf("after %s by the monotonic and %s by the wall clock: decision %v, %v, asked %d times in all; want %d", step.run, step.wall, got, err, asked, i+1)
		}
	}
}

// stepped returns t as read again when the two clocks have moved by so much.
func stepped(t time.Time, run, wall time.Duration) time.Time {
	out := t.Add(wall)
	(*struct {
		wall uint64
		ext  int64 // nanoseconds of the monotonic clock
		loc  *time.Location
	})(unsafe.Pointer(&out)).ext += int64(run - wall)
	return out
}

// TestWritesAreNeverRemembered: nothing here can be written, and a path is not a metric.
func TestWritesAreNeverRemembered(t *testing.T) {
	write := read("rps", user.DefaultInfo{Name: "ci"})
	write.Verb = "create"
	path := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "ci"}, Verb: "get", Path: "/metrics"}
	for name, q := range map[string]authorizer.AttributesRecord{"write": write, "path": path} {
		asked := 0
		a := remember(authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			asked++
			return authorizer.DecisionAllow, "", nil
		}), allowFresh, time.Now, nil)
		for range 2 {
			if got, _, err := a.Authorize(t.Context(), q); got != authorizer.DecisionAllow || err != nil {
				t.Fatalf("%s: decision %v, error %v", name, got, err)
			}
		}
		if asked != 2 {
			t.Errorf("%s: asked %d times, want 2", name, asked)
		}
	}
}

// TestOnlyTheProxyIsTheProxy: nobody becomes it by its headers or by a certificate
// of another name or authority.
func TestOnlyTheProxyIsTheProxy(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	roots, err := dynamiccertificates.NewStaticCAContent("front proxy", ours.certPEM)
	if err != nil {
		t.Fatal(err)
	}
	names := headerrequest.StaticStringSlice{"front-proxy"}
	info := &genericapiserver.AuthenticationInfo{
		RequestHeaderConfig: &authenticatorfactory.RequestHeaderConfig{
			UsernameHeaders: headerrequest.StaticStringSlice{"X-Remote-User"}, UIDHeaders: headerrequest.StaticStringSlice{}, GroupHeaders: headerrequest.StaticStringSlice{"X-Remote-Group"},
			ExtraHeaderPrefixes: headerrequest.StaticStringSlice{"X-Remote-Extra-"}, CAContentProvider: roots, AllowedClientNames: names,
		},
		Authenticator: authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: "by token"}}, true, nil
		}),
	}
	markProxied(info)
	for _, c := range []struct {
		name  string
		certs []*x509.Certificate
		want  string
	}{
		{"the proxy", []*x509.Certificate{ours.client(t, "front-proxy")}, "hpa"},
		{"another name", []*x509.Certificate{ours.client(t, "node")}, "by token"},
		{"another authority", []*x509.Certificate{theirs.client(t, "front-proxy")}, "by token"},
		{"no certificate", nil, "by token"},
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		req.TLS = &tls.ConnectionState{PeerCertificates: c.certs}
		req.Header.Set("X-Remote-User", "hpa")
		resp, ok, err := info.Authenticator.AuthenticateRequest(req)
		if err != nil || !ok {
			t.Fatalf("%s: %v, %v", c.name, ok, err)
		}
		_, is := resp.User.(proxied)
		if resp.User.GetName() != c.want || is != (c.want == "hpa") {
			t.Errorf("%s: user %q, proxied %v; want %q", c.name, resp.User.GetName(), is, c.want)
		}
		if is && !slices.Contains(resp.User.GetGroups(), user.AllAuthenticated) {
			t.Errorf("%s: groups %v, want %s among them", c.name, resp.User.GetGroups(), user.AllAuthenticated)
		}
	}
}

func newAuthority(t *testing.T) issuer {
	t.Helper()
	ca, err := authority(nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func (i issuer) client(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	key, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, i.cert, key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func read(metric string, u user.DefaultInfo) authorizer.AttributesRecord {
	return authorizer.AttributesRecord{
		User: &u, Verb: "list", Namespace: "test", APIGroup: "external.metrics.k8s.io", APIVersion: "v1beta1", Resource: metric, ResourceRequest: true,
	}
}
