package externalmetrics

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"kelpie.dev/kelpie/clusteragent/reference"
)

// frontDoor returns a provider before the KEDA that answers.
func frontDoor(t *testing.T, timeout time.Duration, answer http.HandlerFunc) (*Provider, *httptest.Server) {
	t.Helper()
	s := httptest.NewUnstartedServer(answer)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	k, err := NewKEDA(KEDAOptions{
		Config: &rest.Config{Host: "https://kubernetes.default.svc", BearerToken: "sesame"}, URL: s.URL, CAFile: ca, Timeout: timeout,
		Registerer: prometheus.NewRegistry(), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &Provider{Index: reference.NewIndex(reference.Options{}, nil), KEDA: k}
	p.Instrument(prometheus.NewRegistry(), log)
	return p, s
}

func get(t *testing.T, p *Provider, metric, selector string) (string, error) {
	t.Helper()
	sel, err := labels.Parse(selector)
	if err != nil {
		t.Fatal(err)
	}
	list, err := p.GetExternalMetric(t.Context(), "web", sel, provider.ExternalMetricInfo{Metric: metric})
	if err != nil {
		return "", err
	}
	var got []string
	for _, i := range list.Items {
		got = append(got, fmt.Sprintf("%s=%s@%s", i.MetricName, i.Value.String(), i.Timestamp.UTC().Format(time.RFC3339)))
	}
	return strings.Join(got, " "), nil
}

const kedaList = `{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"items":[
{"metricName":"s0-cron","metricLabels":null,"timestamp":"2026-01-02T03:04:05Z","value":"1500m"}]}`

func TestKEDAsMetricsArePassedOn(t *testing.T) {
	var asked []string
	p, _ := frontDoor(t, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI()+" "+r.Header.Get("Authorization"))
		_, _ = w.Write([]byte(kedaList))
	})
	got, err := get(t, p, "s0-cron", kedaLabel+"=orders")
	if want := "s0-cron=1500m@2026-01-02T03:04:05Z"; err != nil || got != want {
		t.Errorf("a request with KEDA's label: %q, %v; want %q", got, err, want)
	}
	for _, other := range []string{"", "a=b", "!" + kedaLabel, kedaLabel + "!=orders"} {
		if got, err := get(t, p, "s0-cron", other); !apierrors.IsNotFound(err) || strings.Contains(err.Error(), "KEDA") {
			t.Errorf("selector %q: %q, %v; want our own 404", other, got, err)
		}
	}
	want := "/apis/external.metrics.k8s.io/v1beta1/namespaces/web/s0-cron?labelSelector=scaledobject.keda.sh%2Fname%3Dorders Bearer sesame"
	if len(asked) != 1 || asked[0] != want {
		t.Errorf("KEDA was asked %q, want once %q", asked, want)
	}
	p.KEDA = nil
	if _, err := get(t, p, "s0-cron", kedaLabel+"=orders"); !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "keda.enabled") {
		t.Errorf("KEDA's label without a KEDA: %v, want 404 with the setting", err)
	}
}

func TestKEDAsFaultsAreSaid(t *testing.T) {
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	for _, c := range []struct {
		name    string
		answer  http.HandlerFunc
		code    int32
		words   string
		counted string
	}{
		{"unknown", reply(404, `{"kind":"Status","reason":"NotFound","message":"no ScaledObject"}`), 404, "KEDA: no ScaledObject", "404"},
		{"scaler fails", reply(500, `{"kind":"Status","message":"error when getting metric"}`), 500, "KEDA: error when getting metric", "500"},
		{"no Status", reply(502, "<html>"+strings.Repeat("x", 9000)), 502, "KEDA: <html>", "502"},
		{"no right", reply(403, `{"kind":"Status","message":"datadog-cluster-agent cannot get"}`), 503, "needs get and list on external.metrics.k8s.io", "403"},
		{"no identity", reply(401, "Unauthorized"), 503, "refuses the cluster agent", "401"},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) }, 503, "status 302", "302"},
		{"no JSON", reply(200, "hello"), 503, "not JSON", "200"},
		{"endless", reply(200, strings.Repeat(" ", kedaAnswerLimit+1)), 503, "more than 1048576 bytes", "200"},
		{"hang-up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 503, "cannot reach KEDA's metrics server https://", "unreachable"},
	} {
		p, _ := frontDoor(t, time.Minute, c.answer)
		_, err := get(t, p, "s0-cron", kedaLabel+"=orders")
		st, ok := err.(apierrors.APIStatus)
		if !ok || st.Status().Code != c.code || !strings.Contains(st.Status().Message, c.words) || len(st.Status().Message) > 2*kedaMessageLimit {
			t.Errorf("%s: %.600v; want %d with %q", c.name, err, c.code, c.words)
		}
		if err != nil && strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: the error shows the token", c.name)
		}
		if n := testutil.ToFloat64(p.KEDA.requests.WithLabelValues(c.counted)); n != 1 {
			t.Errorf("%s: counted %v times as %s, want once", c.name, n, c.counted)
		}
	}
	if elsewhere != 0 {
		t.Error("a redirect was followed: it takes the token along")
	}
}

func reply(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

// A KEDA that hangs costs a request its deadline, and others nothing.
func TestKEDAThatHangs(t *testing.T) {
	release := make(chan struct{})
	p, _ := frontDoor(t, time.Millisecond, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	_, err := get(t, p, "s0-cron", kedaLabel+"=orders")
	if !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "KELPIE_KEDA_TIMEOUT") {
		t.Errorf("a KEDA that hangs: %v, want 503 with the setting", err)
	}
	if _, err := get(t, p, "mine", ""); !apierrors.IsNotFound(err) {
		t.Errorf("a metric of ours meanwhile: %v, want our own answer", err)
	}
}

// Only a server that the given authority vouches for is shown the token, and
// the file is read again when the authority changes.
func TestKEDAsAuthority(t *testing.T) {
	shown := 0
	p, s := frontDoor(t, time.Minute, func(w http.ResponseWriter, _ *http.Request) {
		shown++
		w.Header().Set("Connection", "close")
		_, _ = w.Write([]byte(kedaList))
	})
	good, err := os.ReadFile(p.KEDA.opts.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := issue(nil, []string{"other"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		ca    []byte
		words string // "" for success
	}{
		{good, ""}, {foreign[caCertKey], "certificate"}, {[]byte("hand-edited"), "holds no certificate"}, {good, ""},
	} {
		if err := os.WriteFile(p.KEDA.opts.CAFile, c.ca, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := get(t, p, "s0-cron", kedaLabel+"=orders")
		if (err == nil) != (c.words == "") || err != nil && (!apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("authority %d: %v, want 503 with %q, or success where there are no words", i, err, c.words)
		}
	}
	if shown != 2 {
		t.Errorf("the server was asked %d times, want only while it was trusted: 2", shown)
	}
	s.Close()
	if _, err := get(t, p, "s0-cron", kedaLabel+"=orders"); !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("KEDA is down: %v, want 503 with its address", err)
	}
}

func TestDiscoveryMergesKEDAs(t *testing.T) {
	calls, code := 0, 200
	p, _ := frontDoor(t, time.Minute, func(w http.ResponseWriter, _ *http.Request) {
		calls++
		w.WriteHeader(code)
		_, _ = w.Write([]byte(`{"kind":"APIResourceList","groupVersion":"external.metrics.k8s.io/v1beta1","resources":[{"name":"externalmetrics"},{"name":"s0-cron"}]}`))
	})
	for range 3 {
		if got := fmt.Sprint(p.ListAllExternalMetrics()); got != "[{s0-cron}]" {
			t.Errorf("discovery lists %s, want KEDA's and no placeholder beside it", got)
		}
	}
	if calls != 1 {
		t.Errorf("KEDA was asked %d times, want once", calls)
	}
	p.KEDA.next, code = time.Time{}, 503
	if got := fmt.Sprint(p.ListAllExternalMetrics()); got != "[{s0-cron}]" || calls != 2 {
		t.Errorf("KEDA went down: discovery lists %s after %d calls, want what it said before", got, calls)
	}
	p.KEDA.listed = nil
	if got := fmt.Sprint(p.ListAllExternalMetrics()); got != "[{"+placeholder+"}]" {
		t.Errorf("nothing known: discovery lists %s, want the placeholder", got)
	}
}

func TestKEDANeedsItsAuthority(t *testing.T) {
	_, err := NewKEDA(KEDAOptions{Config: &rest.Config{}, URL: "https://k", CAFile: "/none/ca.crt", Timeout: time.Second, Registerer: prometheus.NewRegistry()})
	if err == nil || !strings.Contains(err.Error(), "KELPIE_KEDA_CA_FILE") {
		t.Errorf("NewKEDA = %v, want the setting", err)
	}
}
