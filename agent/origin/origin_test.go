package origin

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	appID     = strings.Repeat("a", 64)
	sidecarID = strings.Repeat("b", 64)
)

const appPod = "11111111-2222-3333-4444-555555555555"

func recorded(t testing.TB) []Pod {
	t.Helper()
	body, err := os.ReadFile("testdata/pods.json")
	if err != nil {
		t.Fatal(err)
	}
	pods, err := decodePods(body)
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

func TestTags(t *testing.T) {
	x := NewIndex(recorded(t), TagOptions{})
	podLow := []string{
		"kube_namespace:test", "pod_phase:running", "kube_qos:Burstable", "kube_priority_class:high", "kube_app_name:metric-app",
		"kube_ownerref_kind:replicaset", "kube_replica_set:test-metric-app-7b9f6c8d5x", "kube_deployment:test-metric-app", "team:a", "zone:x", "zone:y", "env:prod",
	}
	podOrch := []string{"pod_name:test-metric-app-7b9f6c8d5x-x2k4m", "kube_ownerref_name:test-metric-app-7b9f6c8d5x"}
	app := []string{
		"kube_container_name:test-metric-app", "image_name:registry.example.com:5000/team/test-metric-app",
		"short_image:test-metric-app", "image_tag:latest", "image_id:x@sha256:1111", "service:web", "version:1.5",
	}
	sidecar := []string{
		"kube_container_name:sidecar", "image_name:envoy", "short_image:envoy", "image_id:envoy@sha256:0000",
		"service:proxy", "version:1.4", "role:proxy",
	}
	for _, tt := range []struct {
		about  string
		entity Entity
		level  Cardinality
		want   [][]string
	}{
		{"pod, low", Entity{PodUID: appPod}, Low, [][]string{podLow, {"service:web", "version:1.4"}}},
		{"pod, orchestrator", Entity{PodUID: appPod}, Orchestrator, [][]string{podLow, podOrch, {"service:web", "version:1.4"}}},
		{"container, low: its own version", Entity{ContainerID: appID}, Low, [][]string{podLow, app}},
		{"container, high", Entity{ContainerID: appID, PodUID: appPod}, High, [][]string{podLow, podOrch, app, {
			"container_id:" + appID, "container_name:test-metric-app", "display_container_name:test-metric-app_test-metric-app-7b9f6c8d5x-x2k4m", "build:77",
		}}},
		{"container by name", Entity{PodUID: appPod, ContainerName: "sidecar"}, Low, [][]string{podLow, sidecar}},
		{"none", Entity{ContainerID: sidecarID}, None, nil},
		{"job of a cron job", Entity{PodUID: "cronpod"}, Low, [][]string{{
			"kube_namespace:ops", "pod_phase:pending", "kube_qos:BestEffort", "kube_ownerref_kind:job", "kube_cronjob:backup",
		}}},
		{"stateful set", Entity{PodUID: "setpod"}, Low, [][]string{{
			"kube_namespace:ops", "pod_phase:running", "kube_qos:Guaranteed", "kube_ownerref_kind:statefulset", "kube_stateful_set:db", "persistentvolumeclaim:data-db-0",
		}}},
		{"static pod by its hash, bad annotation", Entity{PodUID: "statichash"}, Low, [][]string{{
			"kube_namespace:kube-system", "pod_phase:running", "kube_qos:Burstable",
		}}},
	} {
		levels, _ := x.Lookup(tt.entity)
		if levels == nil {
			t.Errorf("%s: not found", tt.about)
			continue
		}
		var want metric.Tags
		for _, tags := range tt.want {
			want = want.Union(tags...)
		}
		if diff := cmp.Diff(want, levels.At(tt.level), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.about, diff)
		}
	}
	if l, _ := x.Lookup(Entity{ContainerID: "unknown"}); l != nil {
		t.Errorf("unknown container has tags %v", l.At(High))
	}
	if l, exact := x.Lookup(Entity{ContainerID: "unknown", PodUID: appPod}); l == nil || exact {
		t.Error("the pod does not stand in for its new container")
	}
}

func TestDeploymentOf(t *testing.T) {
	for replicaSet, want := range map[string]string{
		"web-7b9f6c8d5x": "web", "web-api-1234567": "web-api", "web-54": "", "web-abc": "", "web-1b2": "", "web-bcd": "web", "web": "", "web-": "",
	} {
		if got := deploymentOf(replicaSet); got != want {
			t.Errorf("deploymentOf(%q) = %q, want %q", replicaSet, got, want)
		}
	}
}

func TestSplitImage(t *testing.T) {
	for image, want := range map[string][3]string{
		"nginx":                      {"nginx", "nginx", "latest"},
		"nginx:1.27":                 {"nginx", "nginx", "1.27"},
		"r.io:5000/a/b":              {"r.io:5000/a/b", "b", "latest"},
		"r.io:5000/a/b:v1@sha256:00": {"r.io:5000/a/b", "b", "v1"},
		"b@sha256:00":                {"b", "b", ""},
		"":                           {"", "", ""},
	} {
		name, short, tag := splitImage(image)
		if got := [3]string{name, short, tag}; got != want {
			t.Errorf("splitImage(%q) = %q, want %q", image, got, want)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	for about, tt := range map[string]struct {
		content string
		want    Entity
	}{
		"v2 systemd":              {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod11111111_2222_3333_4444_555555555555.slice/cri-containerd-" + appID + ".scope\n", Entity{ContainerID: appID, PodUID: appPod}},
		"v2 cgroupfs":             {"0::/kubepods/burstable/pod" + appPod + "/" + appID + "\n", Entity{ContainerID: appID, PodUID: appPod}},
		"v2, own namespace":       {"0::/../" + appID + "\n", Entity{ContainerID: appID}},
		"v2, below the container": {"0::/kubepods/pod" + appPod + "/" + appID + "/app/worker\n", Entity{ContainerID: appID, PodUID: appPod}},
		"v1":                      {"12:cpu,cpuacct:/kubepods/besteffort/pod" + appPod + "/" + appID + "\n11:memory:/other\n", Entity{ContainerID: appID, PodUID: appPod}},
		"docker":                  {"3:cpu:/system.slice/docker-" + appID + ".scope\n", Entity{ContainerID: appID}},
		"host process":            {"0::/user.slice/user-0.slice/session-1.scope\n", Entity{}},
		"upper case is no id":     {"0::/" + strings.Repeat("A", 64), Entity{}},
		"garbage":                 {"\n:::\nxyz", Entity{}},
	} {
		if diff := cmp.Diff(tt.want, ParseCgroup(tt.content), cmpopts.EquateComparable(Entity{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", about, diff)
		}
	}
}

func TestParseClaims(t *testing.T) {
	for field, want := range map[string]Entity{
		"abc": {ContainerID: "abc"}, "ci-abc": {ContainerID: "abc"}, "cid-abc": {ContainerID: "abc"}, "in-123": {Inode: 123},
		"in-123,ci-abc": {ContainerID: "abc"}, "in-123,cid-abc": {Inode: 123}, "x,y": {}, "": {}, "in-": {}, "in--1": {}, "in-18446744073709551616": {},
	} {
		if got := ParseLocalData(field); got != want {
			t.Errorf("ParseLocalData(%q) = %+v, want %+v", field, got, want)
		}
	}
	for field, want := range map[string]Entity{
		"it-false,cn-app,pu-u1": {PodUID: "u1", ContainerName: "app"}, "pu-u1": {PodUID: "u1"}, "cn-app": {}, "": {}, ",,": {},
	} {
		if got := ParseExternalData(field); got != want {
			t.Errorf("ParseExternalData(%q) = %+v, want %+v", field, got, want)
		}
	}
}

// source is a PodSource that changes.
type source struct {
	pods  atomic.Pointer[[]Pod]
	err   atomic.Pointer[error]
	asked atomic.Int64
}

func (s *source) Pods(context.Context) ([]Pod, error) {
	s.asked.Add(1)
	if err := s.err.Load(); err != nil {
		return nil, *err
	}
	if pods := s.pods.Load(); pods != nil {
		return *pods, nil
	}
	return nil, nil
}

func claim(c Claim) *Claim { return &c }

// TestLadders holds the order in which origins count, with a process whose
// cgroup is the app's container.
func TestLadders(t *testing.T) {
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "42"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(proc, "42", "cgroup"), []byte("0::/kubepods/pod"+appPod+"/"+appID+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tagger := NewTagger(TaggerOptions{Source: &source{}})
	tagger.index = NewIndex(recorded(t), TagOptions{})
	uid := func(s string) []byte { return []byte(s) }
	for _, tt := range []struct {
		about   string
		o       ResolverOptions
		claim   Claim
		want    []string // tags that must be there
		without []string
		outcome Outcome
	}{
		{"no claim", ResolverOptions{Cardinality: Low}, Claim{}, []string{"base:x"}, []string{"kube_namespace:test"}, NoOrigin},
		{"credentials", ResolverOptions{Cardinality: Low}, Claim{PID: 42}, []string{"base:x", "kube_container_name:test-metric-app"}, []string{"pod_name:test-metric-app-7b9f6c8d5x-x2k4m"}, Resolved},
		{"older order adds the entity's pod", ResolverOptions{Cardinality: Low}, Claim{PID: 42, PodUID: uid("setpod"), ContainerID: uid(sidecarID)}, []string{"kube_namespace:test", "kube_stateful_set:db"}, []string{"kube_container_name:sidecar"}, Resolved},
		{"older order ignores external data", ResolverOptions{Cardinality: Low}, Claim{External: uid("cn-sidecar,pu-" + appPod)}, []string{"base:x"}, []string{"kube_namespace:test"}, NoOrigin},
		{"unified order takes the first", ResolverOptions{Cardinality: Low, Unified: true}, Claim{PID: 42, PodUID: uid("setpod")}, []string{"kube_namespace:test"}, []string{"kube_stateful_set:db"}, Resolved},
		{"unified order takes external data", ResolverOptions{Cardinality: Low, Unified: true}, Claim{External: uid("cn-sidecar,pu-" + appPod), PodUID: uid("setpod")}, []string{"kube_container_name:sidecar"}, []string{"kube_stateful_set:db"}, Resolved},
		{"wish for high", ResolverOptions{Cardinality: Low}, Claim{ContainerID: uid("ci-" + appID), Cardinality: uid("high")}, []string{"container_id:" + appID}, nil, Resolved},
		{"unknown wish is the default", ResolverOptions{Cardinality: Orchestrator}, Claim{ContainerID: uid(appID), Cardinality: uid("huge")}, []string{"pod_name:test-metric-app-7b9f6c8d5x-x2k4m"}, []string{"container_id:" + appID}, Resolved},
		{"wish for none", ResolverOptions{Cardinality: Low}, Claim{PID: 42, Cardinality: uid("none")}, []string{"base:x"}, []string{"kube_namespace:test"}, NoOrigin},
		{"wish for none refused", ResolverOptions{Cardinality: Low, NoOptOut: true}, Claim{PID: 42, Cardinality: uid("none")}, []string{"kube_namespace:test"}, nil, Resolved},
		{"process that has ended", ResolverOptions{Cardinality: Low}, Claim{PID: 43}, []string{"base:x"}, []string{"kube_namespace:test"}, NoOrigin},
		{"unknown container", ResolverOptions{Cardinality: Low}, Claim{ContainerID: uid("zzz")}, nil, nil, Waiting},
	} {
		tt.o.Tagger, tt.o.Base, tt.o.ProcRoot = tagger, metric.NewTags("base:x"), proc
		r := NewResolver(tt.o)
		for range 2 { // the second answer comes from memory
			got, outcome := r.Resolve(claim(tt.claim), now)
			set := got.Set
			if outcome != tt.outcome {
				t.Errorf("%s: outcome %d, want %d", tt.about, outcome, tt.outcome)
			}
			for _, tag := range tt.want {
				if !set.Tags().Has(tag) {
					t.Errorf("%s: tag %s is missing in %s", tt.about, tag, set.Tags())
				}
			}
			for _, tag := range tt.without {
				if set.Tags().Has(tag) {
					t.Errorf("%s: tag %s should not be there", tt.about, tag)
				}
			}
		}
	}
}

// TestNewPod holds that a pod that has just started is found, that the kubelet
// is not asked more than once a second, and that patience ends.
// TestLongHints holds that what cannot name a pod is neither asked for nor kept.
func TestLongHints(t *testing.T) {
	tagger := NewTagger(TaggerOptions{Source: &source{}})
	r := NewResolver(ResolverOptions{Tagger: tagger, Cardinality: Low, Unified: true})
	fits, long := []byte(strings.Repeat("a", maxHint)), []byte(strings.Repeat("a", maxHint+1))
	for field, c := range map[string]Claim{
		"pod": {PodUID: long}, "container": {ContainerID: long}, "external": {External: long}, "cardinality": {PodUID: []byte("u"), Cardinality: long},
	} {
		if _, outcome := r.Resolve(&c, time.Unix(1, 0)); outcome != Unresolved {
			t.Errorf("%s: outcome %d, want unresolved", field, outcome)
		}
	}
	if len(r.cache)+len(tagger.missing) != 0 {
		t.Errorf("%d claims and %d entities are remembered", len(r.cache), len(tagger.missing))
	}
	if _, outcome := r.Resolve(&Claim{PodUID: fits}, time.Unix(1, 0)); outcome != Waiting {
		t.Errorf("a hint of %d bytes: outcome %d, want waiting", maxHint, outcome)
	}
}

func TestNewPod(t *testing.T) {
	pods := recorded(t)
	synctest.Test(t, func(t *testing.T) {
		src := &source{}
		tagger := NewTagger(TaggerOptions{Source: src})
		r := NewResolver(ResolverOptions{Tagger: tagger, Cardinality: Low})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tagger.Run(ctx) }()

		c := claim(Claim{ContainerID: []byte(appID)})
		if _, outcome := r.Resolve(c, time.Now()); outcome != Waiting {
			t.Errorf("first look: outcome %d, want Waiting", outcome)
		}
		<-r.Updated()
		for range 100 {
			if _, outcome := r.Resolve(c, time.Now()); outcome != Waiting {
				t.Errorf("before the pod is known: outcome %d, want Waiting", outcome)
			}
		}
		src.pods.Store(&pods)
		<-r.Updated()
		if got, outcome := r.Resolve(c, time.Now()); outcome != Resolved || !got.Set.Tags().Has("kube_namespace:test") || got.Origin != "test/test-metric-app-7b9f6c8d5x-x2k4m" {
			t.Errorf("once the pod is known: outcome %d, tags %s, origin %q", outcome, got.Set.Tags(), got.Origin)
		}
		if n := src.asked.Load(); n != 2 {
			t.Errorf("the kubelet was asked %d times, want 2", n)
		}
		stranger := claim(Claim{ContainerID: []byte("stranger")})
		if _, outcome := r.Resolve(stranger, time.Now()); outcome != Waiting {
			t.Errorf("stranger: outcome %d, want Waiting", outcome)
		}
		time.Sleep(Patience)
		if _, outcome := r.Resolve(stranger, time.Now()); outcome != Unresolved {
			t.Errorf("stranger after %s: outcome %d, want Unresolved", Patience, outcome)
		}
		// Nobody asks any more: neither does the tagger.
		time.Sleep(time.Minute)
		before := src.asked.Load()
		time.Sleep(10 * time.Minute)
		if after := src.asked.Load(); after != before {
			t.Errorf("the kubelet was asked %d times for nobody", after-before)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestKubelet(t *testing.T) {
	body, err := os.ReadFile("testdata/pods.json")
	if err != nil {
		t.Fatal(err)
	}
	var status atomic.Int64
	status.Store(http.StatusOK)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/pods":
			w.WriteHeader(http.StatusNotFound)
		case r.Header.Get("Authorization") != "Bearer token-1":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.WriteHeader(int(status.Load()))
			_, _ = w.Write(body)
		}
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused certificates are the point
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	ca, token, otherCA := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token"), filepath.Join(dir, "other.crt")
	write := func(path string, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	write(otherCA, []byte("no certificate"))
	write(token, []byte("token-0"))
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	o := KubeletOptions{Host: host, Port: n, CAFile: ca, TokenFile: token}
	k, err := OpenKubelet(o)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.Pods(t.Context()); err == nil || !strings.Contains(err.Error(), "nodes/proxy") {
		t.Errorf("with a wrong token: %v, want an error that says what is needed", err)
	}
	write(token, []byte("token-1\n")) // tokens rotate
	pods, err := k.Pods(t.Context())
	if err != nil || len(pods) != 4 {
		t.Errorf("%d pods, %v", len(pods), err)
	}
	status.Store(http.StatusInternalServerError)
	if _, err := k.Pods(t.Context()); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("kubelet answers 500: %v", err)
	}
	o.CAFile = otherCA
	if _, err := OpenKubelet(o); err == nil || !strings.Contains(err.Error(), "DD_KUBELET_CLIENT_CA") {
		t.Errorf("CA file without a certificate: %v", err)
	}
	testUntrusted(t, KubeletOptions{Host: "example.com", Port: n, CAFile: ca, TokenFile: token}, server.Listener.Addr().String())
}

// testUntrusted asks for a name that the certificate bears, at addr, with a
// pool that does not hold its signer.
func testUntrusted(t *testing.T, o KubeletOptions, addr string) {
	t.Helper()
	k, err := OpenKubelet(o)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	transport := k.peer.client.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}
	transport.TLSClientConfig.ServerName = "not-in-the-certificate.test"
	if _, err := k.Pods(t.Context()); err == nil || !strings.Contains(err.Error(), "DD_KUBELET_TLS_VERIFY") {
		t.Errorf("certificate for another name: %v, want an error that names the mend", err)
	}
}

func TestTaggerSurvivesABadKubelet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{}
		bad := errors.New("connection refused")
		src.err.Store(&bad)
		asked := 0
		tagger := NewTagger(TaggerOptions{Source: src, Asked: func(int, time.Duration, error) { asked++ }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tagger.Run(ctx) }()
		for range 60 {
			tagger.Lookup(Entity{ContainerID: fmt.Sprint(time.Now().Unix())}, time.Now())
			time.Sleep(time.Second)
		}
		if _, err := tagger.Pods(); !errors.Is(err, bad) {
			t.Errorf("error %v, want %v", err, bad)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if asked > 8 || asked < 3 {
			t.Errorf("a kubelet that fails was asked %d times in a minute, want a few", asked)
		}
	})
}
