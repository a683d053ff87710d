package release

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/DataDog/datadog-operator/api/datadoghq/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A Cluster is access to one Kubernetes cluster with the user's own rights.
type Cluster struct {
	client.Reader
	host string
	http *http.Client
}

// Connect returns access to the cluster that cfg names. It asks nothing of it yet.
func Connect(cfg *rest.Config) (*Cluster, error) {
	cfg = rest.CopyConfig(cfg)
	// A person waits for the answer: a server that hangs must be said to hang.
	if cfg.Timeout == 0 {
		cfg.Timeout = 15 * time.Second
	}
	cfg.WarningHandler = rest.NoWarnings{} // deprecations are of no use to who reads
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("use the kubeconfig's credentials for %s: %w", cfg.Host, err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, coordinationv1.AddToScheme, corev1.AddToScheme,
		apiregistrationv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register Kubernetes types: %w", err)
		}
	}
	reader, err := client.New(cfg, client.Options{HTTPClient: hc, Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make a client of %s: %w", cfg.Host, err)
	}
	base, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("read the API server's address %q: %w", cfg.Host, err)
	}
	own := *hc
	own.Transport = statusErrors{hc.Transport}
	return &Cluster{Reader: reader, host: strings.TrimRight(base.String(), "/"), http: &own}, nil
}

// Host returns the API server's URL, for messages.
func (c *Cluster) Host() string { return c.host }

// APIServer returns the API server itself.
func (c *Cluster) APIServer() Endpoint { return Endpoint{URL: c.host, HTTP: c.http} }

// Pod returns a pod's port as the API server proxies it.
func (c *Cluster) Pod(namespace, name string, port int32) Endpoint {
	return c.proxied("pods", namespace, name, port)
}

// Service returns a Service's port as the API server proxies it.
func (c *Cluster) Service(namespace, name string, port int32) Endpoint {
	return c.proxied("services", namespace, name, port)
}

func (c *Cluster) proxied(kind, namespace, name string, port int32) Endpoint {
	return Endpoint{
		URL: c.host + "/api/v1/namespaces/" + url.PathEscape(namespace) + "/" + kind +
			"/http:" + url.PathEscape(name) + ":" + strconv.Itoa(int(port)) + "/proxy",
		HTTP: c.http,
	}
}

// An Endpoint is the root of an HTTP API and the client to ask it with. An
// error that the API server itself answers is a *apierrors.StatusError, also
// when it stands in for the endpoint behind its proxy.
type Endpoint struct {
	URL  string
	HTTP *http.Client
}

// maxAnswer bounds what JSON reads, as health.Fetch does.
const maxAnswer = 32 << 20

// JSON reads path into the JSON value into. The path may carry a query. A role
// that answers 503 with JSON, as one that is not ready does, is read as well.
func (e Endpoint) JSON(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL+path, nil)
	if err != nil {
		return fmt.Errorf("build request for %s: %w", path, err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := e.HTTP.Do(req)
	if err != nil {
		// The URL is the proxy's, long and of no use to the reader.
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return fmt.Errorf("get %s: %w", path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("read %s: it is longer than %d MiB", path, maxAnswer>>20)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable {
		return fmt.Errorf("get %s: HTTP %s", path, resp.Status)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}

// statusErrors turns the API server's own error answers into errors, so that a
// 403 of its access control is not taken for a 403 of the service behind it.
type statusErrors struct{ next http.RoundTripper }

func (t statusErrors) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil || resp.StatusCode < 400 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		return resp, err
	}
	const longest = 1 << 20 // a Status is small; a longer answer is somebody else's
	head, err := io.ReadAll(io.LimitReader(resp.Body, longest))
	if err != nil {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("read error answer: %w", err)
	}
	var s metav1.Status
	if json.Unmarshal(head, &s) == nil && s.Kind == "Status" && s.APIVersion == "v1" {
		_ = resp.Body.Close()
		return nil, &apierrors.StatusError{ErrStatus: s}
	}
	resp.Body = body{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
	return resp, nil
}

type body struct {
	io.Reader
	io.Closer
}
