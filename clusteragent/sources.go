package clusteragent

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"kelpie.dev/kelpie/clusteragent/source"
	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/env"
)

// SourcesConfig is about where values come from.
type SourcesConfig struct {
	Main source.Name // of queries that name none
	APIs []APIConfig // the query APIs, Kelpie's and Datadog's, at most one of each

	Latest    bool // the newest point is read, where the source is polled; else the second newest
	RateShare int  // percent of what a query API's rate limit leaves that this replica may spend

	Prometheus         source.PromQLOptions // no URL: not configured
	PrometheusCA       string               // file; "" trusts the system's authorities
	PrometheusInterval time.Duration        // between two polls of a query

	Shadow ShadowConfig
}

// APIConfig is a query API in Datadog's form.
type APIConfig struct {
	Name           source.Name
	Endpoint       string // base URL
	APIKey, AppKey string
	KeysHint       string // where the keys are mended

	Fallbacks []APIConfig // asked while Endpoint fails; their Name and KeysHint mean nothing
}

// sourcesConfig reads the sources beside the one that Datadog's settings name.
func (c *Config) sourcesConfig(r *env.Reader, site string) {
	s := SourcesConfig{
		Prometheus: source.PromQLOptions{
			URL:    r.String("", "KELPIE_PROMETHEUS_URL"),
			Bearer: r.String("", "KELPIE_PROMETHEUS_BEARER_TOKEN"), BearerFile: r.String("", "KELPIE_PROMETHEUS_BEARER_TOKEN_FILE"),
			User: r.String("", "KELPIE_PROMETHEUS_USERNAME"), Password: r.String("", "KELPIE_PROMETHEUS_PASSWORD"),
			PasswordFile: r.String("", "KELPIE_PROMETHEUS_PASSWORD_FILE"), Tenant: r.String("", "KELPIE_PROMETHEUS_TENANT"),
		},
		RateShare:          r.Int(90, "KELPIE_RATE_LIMIT_SHARE"),
		PrometheusCA:       r.String("", "KELPIE_PROMETHEUS_CA_FILE"),
		PrometheusInterval: r.Seconds(c.Interval, "KELPIE_PROMETHEUS_INTERVAL"),
		Shadow:             shadowConfig(r),
	}
	switch point := r.String("penultimate", "KELPIE_POINT"); point {
	case "penultimate", "latest":
		s.Latest = point == "latest"
	default:
		r.Fail(fmt.Errorf("environment variable KELPIE_POINT is %.50q: write penultimate or latest", point))
	}
	named, err := source.ParseName(r.String("", "KELPIE_SOURCE"))
	if err != nil {
		r.Fail(fmt.Errorf("environment variable KELPIE_SOURCE is %w", err))
	}
	first := APIConfig{Name: source.Datadog, Endpoint: c.Endpoint, APIKey: c.APIKey, AppKey: c.AppKey, KeysHint: c.KeysHint}
	if c.Ours {
		first.Name = source.Kelpie
	}
	first.Fallbacks = fallbacks(r)
	second := beside(r, first.Name, site)
	if second == nil && c.Ours && named == source.Datadog {
		first.Name, c.Ours = source.Datadog, false // the endpoint is a proxy to Datadog
	}
	if named != source.Prometheus || c.APIKey != "" && c.AppKey != "" {
		s.APIs = append(s.APIs, first)
	}
	if second != nil {
		s.APIs = append(s.APIs, *second)
	}
	if s.Main = named; named == "" {
		s.Main = first.Name
	}
	c.Sources = s
}

// fallbacks reads the endpoints that stand in for the first. Upstream has them
// in its file alone, as a list of the same form. No error shows a value: keys are
// among them.
func fallbacks(r *env.Reader) []APIConfig {
	const name = emp + "ENDPOINTS"
	text := r.String("", name)
	if text == "" {
		return nil
	}
	var list []struct {
		Site   string `json:"site"`
		URL    string `json:"url"`
		APIKey string `json:"api_key"`
		AppKey string `json:"app_key"`
	}
	if json.Unmarshal([]byte(text), &list) != nil {
		r.Fail(fmt.Errorf("environment variable %s: expected a JSON list of {url or site, api_key, app_key}", name))
		return nil
	}
	out := make([]APIConfig, len(list))
	for i, e := range list {
		if e.URL == "" && e.Site != "" {
			e.URL = datadog.APIURL(e.Site)
		}
		if e.URL == "" || e.APIKey == "" || e.AppKey == "" {
			r.Fail(fmt.Errorf("environment variable %s: entry %d lacks url or site, api_key, or app_key", name, i+1))
		}
		out[i] = APIConfig{Endpoint: e.URL, APIKey: e.APIKey, AppKey: e.AppKey}
	}
	return out
}

// beside reads the query API of the other kind than that of Datadog's settings;
// nil when there is none.
func beside(r *env.Reader, first source.Name, site string) *APIConfig {
	a := APIConfig{Name: source.Datadog, Endpoint: datadog.APIURL(site)}
	if first == source.Datadog {
		a = APIConfig{Name: source.Kelpie}
	}
	prefix := "KELPIE_SOURCE_" + strings.ToUpper(string(a.Name)) + "_"
	a.Endpoint = r.String(a.Endpoint, prefix+"ENDPOINT")
	a.APIKey, a.AppKey = r.String("", prefix+"API_KEY"), r.String("", prefix+"APP_KEY")
	a.KeysHint = prefix + "API_KEY and " + prefix + "APP_KEY of the cluster agent"
	if a.APIKey == "" && a.AppKey == "" {
		return nil
	}
	for name, value := range map[string]string{"ENDPOINT": a.Endpoint, "API_KEY": a.APIKey, "APP_KEY": a.AppKey} {
		if value == "" {
			r.Fail(fmt.Errorf("environment variable %s%s is not set: a source needs its endpoint and both keys", prefix, name))
		}
	}
	return &a
}

// validate says what is wrong; the errors of the main query API's keys are
// Config's own.
func (s SourcesConfig) validate() error {
	var errs []error
	if s.Main == source.Prometheus && s.Prometheus.URL == "" {
		errs = append(errs, errors.New("KELPIE_SOURCE is prometheus and KELPIE_PROMETHEUS_URL is not set"))
	}
	if s.Prometheus.URL != "" {
		if _, err := source.NewPromQL(s.Prometheus); err != nil {
			errs = append(errs, fmt.Errorf("KELPIE_PROMETHEUS_…: %w", err))
		}
	}
	if s.RateShare < 1 || s.RateShare > 100 {
		errs = append(errs, errors.New("KELPIE_RATE_LIMIT_SHARE must be a percentage from 1 to 100"))
	}
	if s.PrometheusInterval < time.Second {
		errs = append(errs, errors.New("KELPIE_PROMETHEUS_INTERVAL must be at least one second"))
	}
	errs = append(errs, s.validateShadow())
	return errors.Join(errs...)
}

// check returns what judges the text of a query for the cluster's own source,
// as far as that is ours to judge; nil for PromQL.
func (s SourcesConfig) check() func(string) error {
	switch s.Main {
	case source.Kelpie:
		return checkQuery
	case source.Datadog:
		return source.Shape
	default:
		return nil
	}
}

// newSource makes the sources that are configured.
func (a *agent) newSource() error {
	members := map[source.Name]*source.Poller{}
	for _, api := range a.cfg.Sources.APIs {
		o := a.pollerOptions(api.Name)
		o.Share, o.Latest = float64(a.cfg.Sources.RateShare)/100, a.cfg.Sources.Latest
		p, err := a.newAPI(api, o)
		if err != nil {
			return err
		}
		members[api.Name] = p
	}
	if a.cfg.Sources.Prometheus.URL != "" {
		p, err := a.newPrometheus()
		if err != nil {
			return err
		}
		members[source.Prometheus] = p
	}
	var err error
	a.source, err = source.NewSet(a.cfg.Sources.Main, members)
	return err // names itself
}

// pollerOptions are those that all sources share.
func (a *agent) pollerOptions(n source.Name) source.Options {
	return source.Options{
		Name: n, Second: n != a.cfg.Sources.Main, Period: a.cfg.Interval, Timeout: a.cfg.Timeout, Parallel: a.cfg.Parallel,
		Registerer: a.reg, Log: a.proc.Log,
	}
}

// newAPI makes the poller of a query API, with what o says beside.
func (a *agent) newAPI(api APIConfig, o source.Options) (*source.Poller, error) {
	var endpoints []source.Endpoint
	var limited atomic.Pointer[source.Poller] // hears of the first endpoint's rate limit
	for i, e := range append([]APIConfig{api}, api.Fallbacks...) {
		client, err := datadog.New(datadog.Options{
			BaseURL: e.Endpoint, APIKey: e.APIKey, AppKey: e.AppKey,
			UserAgent: "Datadog-Cluster-Agent", // compat: what Datadog's API and proxies know
			Timeout:   a.cfg.Timeout,
			OnRateLimit: func(l datadog.RateLimit) {
				if p := limited.Load(); p != nil && i == 0 {
					p.RateLimit(l)
				}
			},
		})
		if err != nil {
			return nil, fmt.Errorf("query API of source %s: %w", api.Name, err)
		}
		endpoints = append(endpoints, source.Endpoint{URL: client.BaseURL(), Querier: client})
	}
	o.Querier, o.SourceURL, o.KeysHint, o.BatchSize = endpoints[0].Querier, endpoints[0].URL, api.KeysHint, a.cfg.Batch
	if len(endpoints) > 1 {
		f, err := source.NewFailover(a.cfg.Timeout, a.proc.Log, endpoints...)
		if err != nil {
			return nil, err // names itself
		}
		o.Querier, o.Timeout = f, a.cfg.Timeout*time.Duration(len(endpoints))
	}
	if api.Name == source.Kelpie {
		o.Check = checkQuery
		if a.cfg.Stream {
			o.Stream = source.OpenStream(api.Endpoint, api.APIKey, api.AppKey)
		}
	}
	p, err := source.New(o)
	limited.Store(p)
	return p, err // names itself
}

func (a *agent) newPrometheus() (*source.Poller, error) {
	cfg := a.cfg.Sources
	po := cfg.Prometheus
	if cfg.PrometheusCA != "" {
		pem, err := os.ReadFile(cfg.PrometheusCA)
		if err != nil {
			return nil, fmt.Errorf("KELPIE_PROMETHEUS_CA_FILE: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("KELPIE_PROMETHEUS_CA_FILE: %s holds no certificate in PEM", cfg.PrometheusCA)
		}
		tr := http.DefaultTransport.(*http.Transport).Clone()
		tr.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		po.HTTP = &http.Client{Transport: tr}
	}
	promql, err := source.NewPromQL(po)
	if err != nil {
		return nil, err // names itself
	}
	o := a.pollerOptions(source.Prometheus)
	o.PromQL, o.SourceURL, o.Period = promql, po.URL, cfg.PrometheusInterval
	o.KeysHint = "KELPIE_PROMETHEUS_BEARER_TOKEN or KELPIE_PROMETHEUS_USERNAME and its password, and KELPIE_PROMETHEUS_TENANT, of the cluster agent"
	return source.New(o) // names itself
}
