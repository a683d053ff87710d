package clusteragent

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kedaAnswer is what KEDA's Datadog scaler looks at in its cluster-agent proxy
// way: the status, items.0.value and message.
type kedaAnswer struct {
	Code    int
	Message string `json:"message"`
	Items   []struct {
		Value any `json:"value"`
	} `json:"items"`
}

// TestKEDAProxyWay sends KEDA's requests, which come directly and bear the token
// of a service account, not through the Kubernetes API server.
func TestKEDAProxyWay(t *testing.T) {
	c := startCluster(t)
	b := newBackend(t)
	b.set(func(b *backend) { b.values["sum:orders{*}"] = 7.5 })
	ln := listen(t)
	c.register(t, ln)
	c.start(t, "direct", ln, map[string]string{"DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT": b.URL, "DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD": "true"})
	c.wantAvailable(t)
	const always = "name: %, annotations: {external-metrics.datadoghq.com/always-active: \"true\"}"
	for name, query := range map[string]string{"orders": "sum:orders{*}", "silent": "sum:silent{*}"} {
		text := metricText(name, query, "")
		c.apply(t, metrics, "datadogmetrics", strings.Replace(text, "name: "+name, strings.Replace(always, "%", name, 1), 1))
	}
	reader, stranger := c.account(t, "reader"), c.account(t, "stranger")
	c.apply(t, "rbac.authorization.k8s.io/v1", "clusterroles", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: keda-reads},
rules: [{apiGroups: [external.metrics.k8s.io], resources: ["*"], verbs: [get, list, watch]}]}`)
	c.apply(t, "rbac.authorization.k8s.io/v1", "clusterrolebindings", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: keda-reads},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: keda-reads}, subjects: [{kind: ServiceAccount, name: reader, namespace: test}]}`)

	for _, tt := range []struct {
		name, metric, token string
		code                int
		words               string
	}{
		{"a value", "orders", reader, 200, ""},
		{"no data: metricUnavailableValue is used", "silent", reader, 422, "NoData"},
		{"no such object", "other", reader, 404, "there is no DatadogMetric"},
		{"no right", "orders", stranger, 403, "forbidden"},
		{"no token that is one", "orders", "invented", 401, ""},
	} {
		eventually(t, 15*time.Second, func() string {
			got := askAsKEDA(t, ln, tt.metric, tt.token)
			if got.Code != tt.code || !strings.Contains(got.Message, tt.words) {
				return tt.name + ": " + http.StatusText(got.Code) + " " + got.Message
			}
			if tt.code == 200 && (len(got.Items) != 1 || got.Items[0].Value != "7500m") {
				return tt.name + ": items.0.value is not the text of a quantity, 7500m"
			}
			return ""
		})
	}
}

// account makes a service account and returns a token of it.
func (c *cluster) account(t *testing.T, name string) string {
	t.Helper()
	c.apply(t, "v1", "serviceaccounts", `{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: test, name: `+name+`}}`)
	tok, err := c.kube.CoreV1().ServiceAccounts("test").CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	return tok.Status.Token
}

func askAsKEDA(t *testing.T, ln net.Listener, metric, token string) kedaAnswer {
	t.Helper()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	must(t, err)
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // KEDA's unsafeSsl; the certificate is for the Service's name
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		"https://127.0.0.1:"+port+"/apis/external.metrics.k8s.io/v1beta1/namespaces/test/datadogmetric@test:"+metric, nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		return kedaAnswer{Message: err.Error()}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	out := kedaAnswer{Code: resp.StatusCode}
	if err := json.Unmarshal(body, &out); err != nil {
		out.Message = string(body)
	}
	return out
}
