package externalmetrics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

// kedaLabel is in the selector of every metric of the autoscalers that KEDA
// makes; its value is the ScaledObject's name.
const kedaLabel = "scaledobject.keda.sh/name"

const (
	kedaAnswerLimit  = 1 << 20 // bytes; an answer holds one value
	kedaMessageLimit = 500     // bytes of a message that is passed on
	kedaConnections  = 64      // at once: a KEDA that hangs holds no more
	kedaListEvery    = 30 * time.Second
	kedaListTimeout  = time.Second // discovery has other servers to ask too
)

// KEDAOptions says where KEDA's own metrics server is. URL, CAFile and Timeout
// are required.
type KEDAOptions struct {
	Config     *rest.Config // who we are: KEDA's server knows the same callers as ours
	URL        string       // https://service.namespace.svc
	CAFile     string       // PEM; read at each new connection, so that it may be renewed
	Timeout    time.Duration
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// KEDA passes requests on to KEDA's metrics server. Only one server can be
// registered for external metrics; with this one as the front door, both work.
//
// Requests go out under the cluster agent's own account. Whoever asks was
// allowed, by the same authorizer, the same metric in the same namespace before.
type KEDA struct {
	opts     KEDAOptions
	client   *http.Client
	requests *prometheus.CounterVec

	mu     sync.Mutex
	listed []provider.ExternalMetricInfo // last known
	next   time.Time                     // when to list again
}

// NewKEDA returns a KEDA. It does not ask KEDA anything yet.
func NewKEDA(o KEDAOptions) (*KEDA, error) {
	k := &KEDA{opts: o, requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelpie_keda_requests_total",
		Help: "Requests passed on to KEDA's metrics server, by what it answered: an HTTP status, or unreachable."}, []string{"answer"})}
	if _, err := k.authorities(); err != nil {
		return nil, err
	}
	transport, err := k.transport()
	if err != nil {
		return nil, fmt.Errorf("client of KEDA's metrics server: %w", err)
	}
	// A redirect would carry the account's token elsewhere.
	k.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	o.Registerer.MustRegister(k.requests)
	return k, nil
}

func (k *KEDA) transport() (http.RoundTripper, error) {
	own, err := rest.TLSConfigFor(k.opts.Config)
	if err != nil {
		return nil, err
	}
	if own == nil { // no certificate of a client, no authority: an account with a token
		own = &tls.Config{}
	}
	base := &http.Transport{
		MaxConnsPerHost: kedaConnections, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			roots, err := k.authorities()
			if err != nil {
				return nil, err
			}
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			d := tls.Dialer{Config: &tls.Config{
				MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: host,
				Certificates: own.Certificates, GetClientCertificate: own.GetClientCertificate,
			}}
			return d.DialContext(ctx, network, addr)
		},
	}
	return rest.HTTPWrappersForConfig(k.opts.Config, base)
}

func (k *KEDA) authorities() (*x509.CertPool, error) {
	pem, err := os.ReadFile(k.opts.CAFile)
	if err != nil {
		return nil, fmt.Errorf("certificate authority of KEDA's metrics server (KELPIE_KEDA_CA_FILE): %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate authority of KEDA's metrics server: %s holds no certificate (KELPIE_KEDA_CA_FILE)", k.opts.CAFile)
	}
	return roots, nil
}

// isKEDA reports whether a request is for a metric of KEDA's.
func isKEDA(sel labels.Selector) bool {
	reqs, _ := sel.Requirements()
	for _, r := range reqs {
		if r.Key() != kedaLabel {
			continue
		}
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			return true
		default:
		}
	}
	return false
}

// Get asks KEDA for a metric.
func (k *KEDA) Get(ctx context.Context, namespace, metric string, sel labels.Selector) (*external_metrics.ExternalMetricValueList, error) {
	ctx, cancel := context.WithTimeout(ctx, k.opts.Timeout)
	defer cancel()
	path := "/namespaces/" + url.PathEscape(namespace) + "/" + url.PathEscape(metric) + "?labelSelector=" + url.QueryEscape(sel.String())
	var in v1beta1.ExternalMetricValueList
	if err := k.ask(ctx, path, &in); err != nil {
		return nil, err
	}
	var out external_metrics.ExternalMetricValueList
	if err := v1beta1.Convert_v1beta1_ExternalMetricValueList_To_external_metrics_ExternalMetricValueList(&in, &out, nil); err != nil {
		return nil, unavailable("KEDA's metrics server sent what is no list of values: %v", err)
	}
	return &out, nil
}

// List returns what KEDA's discovery lists. It is asked now and then only, and
// while it does not answer, what it said before stands.
func (k *KEDA) List() []provider.ExternalMetricInfo {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Now().Before(k.next) {
		return k.listed
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(kedaListTimeout, k.opts.Timeout))
	defer cancel()
	var found metav1.APIResourceList
	err := k.ask(ctx, "", &found)
	k.next = time.Now().Add(kedaListEvery)
	if err != nil {
		k.opts.Log.Warn("cannot list KEDA's metrics", "error", err)
		return k.listed
	}
	k.listed = nil
	for _, r := range found.APIResources {
		if r.Name != placeholder {
			k.listed = append(k.listed, provider.ExternalMetricInfo{Metric: r.Name})
		}
	}
	return k.listed
}

// ask reads path below the API's root into out. Errors are what a caller is to see.
func (k *KEDA) ask(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(k.opts.URL, "/")+"/apis/external.metrics.k8s.io/v1beta1"+path, nil)
	if err != nil {
		return unavailable("ask KEDA's metrics server: %v", err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := k.client.Do(req)
	if err != nil {
		return k.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }() // read-only
	body, err := io.ReadAll(io.LimitReader(resp.Body, kedaAnswerLimit+1))
	if err != nil {
		return k.unreachable(err)
	}
	k.requests.WithLabelValues(fmt.Sprint(resp.StatusCode)).Inc()
	if len(body) > kedaAnswerLimit {
		return unavailable("KEDA's metrics server %s answered with more than %d bytes", k.opts.URL, kedaAnswerLimit)
	}
	if resp.StatusCode != http.StatusOK {
		return k.refusal(resp.StatusCode, body)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return unavailable("KEDA's metrics server %s answered with what is not JSON of the external metrics API", k.opts.URL)
	}
	return nil
}

func (k *KEDA) unreachable(err error) error {
	k.requests.WithLabelValues("unreachable").Inc()
	if errors.Is(err, context.DeadlineExceeded) {
		return unavailable("KEDA's metrics server %s did not answer in time (KELPIE_KEDA_TIMEOUT); is it running?", k.opts.URL)
	}
	var uerr *url.Error
	if errors.As(err, &uerr) {
		err = uerr.Err // the URL without the reader's metric is named here
	}
	return unavailable("cannot reach KEDA's metrics server %s, to which metrics with the label %s are passed on: %v", k.opts.URL, kedaLabel, err)
}

// refusal passes KEDA's own words on. What KEDA does not allow us is not the
// caller's fault, nor is a redirect.
func (k *KEDA) refusal(code int, body []byte) error {
	said := strings.TrimSpace(string(body))
	var st metav1.Status
	if json.Unmarshal(body, &st) == nil && st.Message != "" {
		said = st.Message
	}
	if len(said) > kedaMessageLimit {
		said = said[:kedaMessageLimit] + "…"
	}
	said = strings.ToValidUTF8(said, "")
	switch {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return unavailable("KEDA's metrics server %s refuses the cluster agent, which needs get and list on external.metrics.k8s.io: %s", k.opts.URL, said)
	case code < http.StatusBadRequest:
		return unavailable("KEDA's metrics server %s answered with status %d; is that its address?", k.opts.URL, code)
	}
	reason := st.Reason
	if reason == "" {
		reason = metav1.StatusReasonUnknown
	}
	return status(int32(code), reason, "KEDA: "+said) //nolint:gosec // three digits
}

func unavailable(format string, args ...any) error {
	return status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, fmt.Sprintf(format, args...))
}
