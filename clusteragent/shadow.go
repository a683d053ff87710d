package clusteragent

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"kelpie.dev/kelpie/clusteragent/reference"
	"kelpie.dev/kelpie/clusteragent/shadow"
	"kelpie.dev/kelpie/clusteragent/source"
	"kelpie.dev/kelpie/env"
)

// ShadowConfig is about the source that is compared with the cluster's own.
type ShadowConfig struct {
	Source    source.Name // "" compares nothing
	Tolerance shadow.Tolerance
}

// shadowConfig reads it. Half of what the stock autoscaler itself does not act
// on (10 %) is no difference.
func shadowConfig(r *env.Reader) ShadowConfig {
	n, err := source.ParseName(r.String("", "KELPIE_SHADOW_SOURCE"))
	if err != nil {
		r.Fail(fmt.Errorf("environment variable KELPIE_SHADOW_SOURCE is %w", err))
	}
	return ShadowConfig{Source: n, Tolerance: shadow.Tolerance{
		Relative: r.Float(5, "KELPIE_SHADOW_TOLERANCE") / 100, Absolute: r.Float(0.001, "KELPIE_SHADOW_ABSOLUTE_TOLERANCE"),
	}}
}

func (s SourcesConfig) validateShadow() error {
	var errs []error
	if t := s.Shadow.Tolerance; t.Relative < 0 || t.Absolute < 0 {
		errs = append(errs, errors.New("KELPIE_SHADOW_TOLERANCE (percent) and KELPIE_SHADOW_ABSOLUTE_TOLERANCE must not be negative"))
	}
	switch n := s.Shadow.Source; {
	case n == "":
	case n == s.Main:
		errs = append(errs, fmt.Errorf("KELPIE_SHADOW_SOURCE is %s, which is the cluster's own source: name another", n))
	case n == source.Prometheus || s.Main == source.Prometheus:
		errs = append(errs, fmt.Errorf("KELPIE_SHADOW_SOURCE is %s and the cluster's own source %s: one takes PromQL and the other Datadog's language, "+
			"and no query is both", n, s.Main))
	case s.api(n) == nil:
		errs = append(errs, fmt.Errorf("KELPIE_SHADOW_SOURCE is %s, which is not configured: set KELPIE_SOURCE_… of it (docs/sources.md)", n))
	}
	return errors.Join(errs...)
}

func (s SourcesConfig) api(n source.Name) *APIConfig {
	if i := slices.IndexFunc(s.APIs, func(a APIConfig) bool { return a.Name == n }); i >= 0 {
		return &s.APIs[i]
	}
	return nil
}

// newShadow makes the comparison, with a poller that serves nobody: its metrics
// are not among the served sources' own, and of the rate limit it leaves half to
// the queries that name its source.
func (a *agent) newShadow() error {
	cfg := a.cfg.Sources
	if cfg.Shadow.Source == "" {
		return nil
	}
	o := a.pollerOptions(cfg.Shadow.Source)
	o.Registerer, o.Log, o.Share = nil, o.Log.With("shadow", true), float64(cfg.RateShare)/200
	var err error
	if a.shadowed, err = a.newAPI(*cfg.api(cfg.Shadow.Source), o); err != nil {
		return err // names itself
	}
	a.shadow, err = shadow.New(shadow.Options{
		Main: a.source, Other: a.shadowed, MainName: cfg.Main, OtherName: cfg.Shadow.Source, Period: a.cfg.Interval, Tolerance: cfg.Shadow.Tolerance,
		Registerer: a.reg, Log: a.proc.Log,
	})
	return err // names itself
}

// ShadowStatus is the comparison's part of a Status.
type ShadowStatus struct {
	shadow.Summary
	Source source.Status `json:"source"` // the shadow's own health
}

func (a *agent) shadowStatus() *ShadowStatus {
	if a.shadow == nil {
		return nil
	}
	return &ShadowStatus{Summary: a.shadow.Summary(), Source: a.shadowed.Status()}
}

// reports are what is served beside the status.
func (a *agent) reports() map[string]func() any {
	if !a.cfg.Enabled || a.cfg.Sources.Shadow.Source == "" {
		return nil
	}
	return map[string]func() any{"/shadow": a.shadowReport}
}

// shadowReport is what /shadow serves: each query that is compared, with the
// metrics that autoscalers read by it.
func (a *agent) shadowReport() any {
	r := a.shadow.Report(time.Now())
	names := map[source.Key][]string{}
	if a.objects != nil {
		for _, m := range a.objects.Metrics() {
			if reference.IsAutogenName(m.ID.Name) {
				continue // its plain name follows
			}
			k := m.Key
			if k.Source == a.cfg.Sources.Main {
				k.Source = ""
			}
			names[k] = append(names[k], reference.ObjectMetric(m.ID))
		}
	}
	for query, metric := range a.index.Queries() {
		k := source.Key{Query: query, Window: a.cfg.Rules.Window(0, 0)}
		names[k] = append(names[k], metric)
	}
	for i := range r.Rows {
		list := names[r.Rows[i].Key]
		slices.Sort(list)
		r.Rows[i].Metrics = list
	}
	return r
}
