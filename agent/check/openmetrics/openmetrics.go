// Package openmetrics is the check of pages in Prometheus' text format, with
// the meaning of the second version of Datadog's OpenMetrics check.
//
// It owns which families and labels are taken and what they are called. It does
// not read the format itself (see exposition) nor fetch pages (see fetch).
package openmetrics

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/check/exposition"
	"kelpie.dev/kelpie/agent/check/fetch"
	"kelpie.dev/kelpie/metric"
)

const (
	maxPage = 32 << 20 // bytes
	// defaultLimit is how many contexts a run may submit; Datadog's default.
	defaultLimit = 2000
	maxLimit     = 50_000
)

// Kind is the check named openmetrics.
func Kind() check.Kind { return check.Kind{Name: "openmetrics", New: newCheck} }

type config struct {
	Endpoint           string            `json:"openmetrics_endpoint"` // URL; required
	Namespace          string            `json:"namespace"`            // before every name; required
	RawMetricPrefix    string            `json:"raw_metric_prefix"`    // cut from the page's names before anything else
	Metrics            []any             `json:"metrics"`
	ExtraMetrics       []any             `json:"extra_metrics"`
	ExcludeMetrics     []string          `json:"exclude_metrics"`
	ExcludeByLabels    map[string]any    `json:"exclude_metrics_by_labels"`
	ExcludeLabels      []string          `json:"exclude_labels"`
	IncludeLabels      []string          `json:"include_labels"`
	RenameLabels       map[string]string `json:"rename_labels"`
	TagByEndpoint      *bool             `json:"tag_by_endpoint"`             // nil means true
	HealthServiceCheck *bool             `json:"enable_health_service_check"` // nil means true
	Buckets            *bool             `json:"collect_histogram_buckets"`   // nil means true
	NonCumulative      bool              `json:"non_cumulative_histogram_buckets"`
	AsDistributions    bool              `json:"histogram_buckets_as_distributions"`
	MaxReturned        int               `json:"max_returned_metrics"` // contexts; 0 means 2000
	IgnoreConnErrors   bool              `json:"ignore_connection_errors"`
	PrometheusURL      string            `json:"prometheus_url"` // of the first version of the check
	fetch.Config
}

type openmetrics struct {
	c             config
	client        *fetch.Client
	names         *selection
	exclude       []*regexp.Regexp
	excludeLabels map[string]*regexp.Regexp // samples that have such a label are left out
	tags          []string                  // of series and service checks

	// flushFirst says that a total seen for the first time is new: the run
	// before has seen the page without it.
	flushFirst bool
}

func newCheck(i *check.Instance) (check.Check, error) {
	var c config
	if err := i.Decode(&c); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	o := &openmetrics{c: c, excludeLabels: map[string]*regexp.Regexp{}}
	var err error
	if o.names, err = newSelection(c.Metrics, c.ExtraMetrics); err != nil {
		return nil, err
	}
	for _, text := range c.ExcludeMetrics {
		p, err := namePattern(text)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", "exclude_metrics", err)
		}
		o.exclude = append(o.exclude, p)
	}
	for label, values := range c.ExcludeByLabels {
		if o.excludeLabels[label], err = labelPattern(values); err != nil {
			return nil, fmt.Errorf("key %q: label %q: %w", "exclude_metrics_by_labels", label, err)
		}
	}
	if c.TagByEndpoint == nil || *c.TagByEndpoint {
		o.tags = append(o.tags, "endpoint:"+fetch.Redact(c.Endpoint))
	}
	if o.client, err = fetch.New(c.Config, i.Access); err != nil {
		return nil, err
	}
	return o, nil
}

func (c *config) validate() error {
	switch {
	case c.Endpoint == "" && c.PrometheusURL != "":
		return fmt.Errorf("key %q is of the first version of the check: rename it to %q, and counters will end in .count", "prometheus_url", "openmetrics_endpoint")
	case c.Namespace == "":
		return fmt.Errorf("key %q is missing: expected what the metrics' names shall begin with, such as the application's name", "namespace")
	case len(c.Metrics)+len(c.ExtraMetrics) == 0:
		return fmt.Errorf(`key "metrics" is missing: expected a list of names such as requests_total, patterns such as "http_.*", or mappings such as {requests_total: requests}`)
	case c.AsDistributions:
		return fmt.Errorf("key %q: buckets cannot be sent as distributions: remove the key, and they are sent as counts with the tag upper_bound", "histogram_buckets_as_distributions")
	case c.MaxReturned < 0 || c.MaxReturned > maxLimit:
		return fmt.Errorf("key %q: expected 1 to %d", "max_returned_metrics", maxLimit)
	}
	if c.MaxReturned == 0 {
		c.MaxReturned = defaultLimit
	}
	_, err := fetch.URL("openmetrics_endpoint", c.Endpoint)
	return err
}

// labelPattern reads true, for any value, or a list of patterns.
func labelPattern(values any) (*regexp.Regexp, error) {
	var patterns []string
	switch v := values.(type) {
	case bool:
		if v {
			patterns = []string{""}
		}
	case []any:
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return nil, fmt.Errorf("expected true or a list of patterns")
			}
			patterns = append(patterns, s)
		}
	}
	if len(patterns) == 0 {
		return nil, fmt.Errorf("expected true or a list of patterns")
	}
	return regexp.Compile(strings.Join(patterns, "|"))
}

func (o *openmetrics) Close() { o.client.Close() }

// Run reads the page once.
func (o *openmetrics) Run(ctx context.Context, s *check.Sender) error {
	s.SetLimit(o.c.MaxReturned)
	page, mediaType, err := o.client.Get(ctx, o.c.Endpoint, exposition.Accept, maxPage)
	if err == nil && mediaType == "application/openmetrics-text" {
		err = fmt.Errorf("the endpoint answered in OpenMetrics' own format, though asked for text/plain: let it answer in Prometheus' text format")
	}
	o.health(s, err)
	if err != nil {
		o.flushFirst = false
		if o.c.IgnoreConnErrors && ctx.Err() == nil {
			s.Warnf("%v", err)
			return nil
		}
		return err
	}
	untyped := 0
	err = exposition.Families(page, o.wanted, func(f *dto.MetricFamily) {
		if !o.family(s, f) {
			untyped++
		}
	})
	if untyped > 0 {
		s.Warnf("%d metrics that are asked for have no type on the page and are left out: give them one, as in {name: {name: new, type: gauge}}", untyped)
	}
	o.flushFirst = err == nil
	return err
}

func (o *openmetrics) health(s *check.Sender, err error) {
	if o.c.HealthServiceCheck != nil && !*o.c.HealthServiceCheck {
		return
	}
	status, message := metric.CheckOK, ""
	if err != nil {
		status, message = metric.CheckCritical, err.Error()
	}
	s.ServiceCheck(o.c.Namespace+".openmetrics.health", status, message, o.tags...)
}

// bare returns a family's name as the configuration's keys mean it: without the
// raw prefix and, of a counter, without _total.
func (o *openmetrics) bare(name string) string {
	return strings.TrimPrefix(name, o.c.RawMetricPrefix)
}

// wanted reports whether a family of the page is asked for.
func (o *openmetrics) wanted(name string) bool {
	name = o.bare(name)
	short := strings.TrimSuffix(name, "_total")
	if slices.ContainsFunc(o.exclude, func(p *regexp.Regexp) bool { return p.MatchString(name) || p.MatchString(short) }) {
		return false
	}
	_, ok := o.names.find(name)
	return ok
}
