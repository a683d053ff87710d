package queryapi

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/metric/payload"
)

// known serves requests that name a metric which is there, and answers 404 to
// the others.
func (a *API) known(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := a.opts.Store.Describe(r.PathValue("metric")); !ok {
			answer.Error(w, http.StatusNotFound, "metric_name not found")
			return
		}
		serve(w, r)
	}
}

// described is the answer of GET and PUT /api/v1/metrics/{metric}: what was
// submitted, and over it what was set.
func (a *API) described(name string) (m payload.MetricMetadata, ok bool) {
	s, isDistribution, ok := a.opts.Store.Describe(name)
	if !ok {
		return m, false
	}
	m = a.opts.Store.Metadata(name)
	m.Type, m.StatsdInterval, m.Unit = nil, nil, nil
	if t := s.Type.String(); t != "" || isDistribution {
		if isDistribution {
			t = "distribution"
		}
		m.Type = &t
	}
	if s.Interval > 0 {
		m.StatsdInterval = &s.Interval
	}
	if s.Unit != "" {
		m.Unit = &s.Unit
	}
	return m, true
}

// describe is GET /api/v1/metrics/{metric}.
func (a *API) describe(w http.ResponseWriter, r *http.Request) {
	m, ok := a.described(r.PathValue("metric"))
	if !ok {
		answer.Error(w, http.StatusNotFound, "metric_name not found")
		return
	}
	answer.JSON(w, http.StatusOK, m)
}

// putMetadata is PUT /api/v1/metrics/{metric}.
func (a *API) putMetadata(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("metric")
	body, code, err := readBody(w, r, maxEditBody)
	if err != nil {
		answer.Error(w, code, err.Error())
		return
	}
	_, isDistribution, _ := a.opts.Store.Describe(name)
	err = a.opts.Store.EditMetadata(name, func(m payload.MetricMetadata) (payload.MetricMetadata, error) {
		m, err := payload.EditMetadata(m, body)
		switch {
		case err != nil:
			return m, invalid{err}
		case m.Type != nil && (*m.Type == "distribution") != isDistribution:
			return m, invalid{errors.New("type: a metric is a distribution by what is submitted, and no edit makes or unmakes one")}
		}
		return m, nil
	})
	if a.failed(w, r, err) {
		return
	}
	m, _ := a.described(name)
	answer.JSON(w, http.StatusOK, m)
}

// failed answers an edit's error, if it is one.
func (a *API) failed(w http.ResponseWriter, r *http.Request, err error) bool {
	var not invalid
	var limit interface{ QueryLimit() }
	switch {
	case err == nil:
		return false
	case errors.As(err, &not):
		answer.Error(w, http.StatusBadRequest, not.Error())
	case errors.As(err, &limit):
		answer.Error(w, http.StatusBadRequest, "no more metrics can be described: remove some first")
	default:
		a.unavailable(w, r, err)
	}
	return true
}

// allTags is GET /api/v2/metrics/{metric}/all-tags.
func (a *API) allTags(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("metric")
	window, err := window(r.URL.Query(), tagsWindow)
	if err != nil {
		answer.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	tags, err := a.opts.Store.Tags(r.Context(), name, a.opts.Now().Add(-window))
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	answer.JSON(w, http.StatusOK, map[string]any{"data": resource("metrics", name, map[string]any{"tags": append([]string{}, tags...)})})
}

// tagConfiguration is GET /api/v2/metrics/{metric}/tags.
func (a *API) tagConfiguration(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("metric")
	config, ok := a.opts.Store.TagConfigurations()[name]
	if !ok {
		answer.Error(w, http.StatusNotFound, "tag configuration not found")
		return
	}
	answer.JSON(w, http.StatusOK, map[string]any{"data": resource("manage_tags", name, config)})
}

// Errors of an edit, beside those of its body.
var (
	errConfigured    = errors.New("the metric has a tag configuration already: update it with PATCH")
	errNotConfigured = errors.New("tag configuration not found")
)

// createTagConfiguration is POST /api/v2/metrics/{metric}/tags.
func (a *API) createTagConfiguration(w http.ResponseWriter, r *http.Request) {
	a.editTagConfiguration(w, r, http.StatusCreated, func(old *payload.TagConfiguration, e payload.TagConfigurationEdit) (*payload.TagConfiguration, error) {
		_, isDistribution, _ := a.opts.Store.Describe(r.PathValue("metric"))
		switch {
		case old != nil:
			return nil, errConfigured
		case e.MetricType == nil || !slices.Contains([]string{"gauge", "count", "rate", "distribution"}, *e.MetricType):
			return nil, invalid{errors.New("data.attributes.metric_type must be gauge, count, rate or distribution")}
		case (*e.MetricType == "distribution") != isDistribution:
			return nil, invalid{errors.New("data.attributes.metric_type is not that of the metric")}
		}
		return &payload.TagConfiguration{MetricType: *e.MetricType, Tags: []string{}, CreatedAt: a.second()}, nil
	})
}

// updateTagConfiguration is PATCH /api/v2/metrics/{metric}/tags.
func (a *API) updateTagConfiguration(w http.ResponseWriter, r *http.Request) {
	a.editTagConfiguration(w, r, http.StatusOK, func(old *payload.TagConfiguration, _ payload.TagConfigurationEdit) (*payload.TagConfiguration, error) {
		if old == nil {
			return nil, errNotConfigured
		}
		return old, nil
	})
}

func (a *API) second() time.Time { return a.opts.Now().UTC().Truncate(time.Second) }

// editTagConfiguration applies the request's edit to the configuration that begin
// returns, and answers with the code.
func (a *API) editTagConfiguration(w http.ResponseWriter, r *http.Request, code int,
	begin func(*payload.TagConfiguration, payload.TagConfigurationEdit) (*payload.TagConfiguration, error),
) {
	name := r.PathValue("metric")
	body, refused, err := readBody(w, r, maxEditBody)
	if err != nil {
		answer.Error(w, refused, err.Error())
		return
	}
	edit, err := payload.DecodeTagConfiguration(body, name)
	if err != nil {
		answer.Error(w, http.StatusBadRequest, err.Error())
		return
	}
	_, isDistribution, _ := a.opts.Store.Describe(name)
	var config payload.TagConfiguration
	err = a.opts.Store.EditTagConfiguration(name, func(old *payload.TagConfiguration) (*payload.TagConfiguration, error) {
		c, err := begin(old, edit)
		if err != nil {
			return nil, err
		}
		if edit.IncludePercentiles != nil && !isDistribution {
			return nil, invalid{errors.New("data.attributes.include_percentiles is for distributions only")}
		}
		if edit.Tags != nil {
			c.Tags = make([]string, 0, len(edit.Tags))
			for _, tag := range edit.Tags {
				c.Tags = append(c.Tags, strings.ToLower(tag))
			}
		}
		if edit.IncludePercentiles != nil {
			c.IncludePercentiles = edit.IncludePercentiles
		}
		if edit.ExcludeTagsMode != nil {
			c.ExcludeTagsMode = *edit.ExcludeTagsMode
		}
		if edit.Aggregations != nil {
			c.Aggregations = edit.Aggregations
		}
		c.ModifiedAt = a.second()
		config = *c
		return c, nil
	})
	switch {
	case errors.Is(err, errConfigured):
		answer.Error(w, http.StatusConflict, err.Error())
	case errors.Is(err, errNotConfigured):
		answer.Error(w, http.StatusNotFound, err.Error())
	case !a.failed(w, r, err):
		answer.JSON(w, code, map[string]any{"data": resource("manage_tags", name, config)})
	}
}

// deleteTagConfiguration is DELETE /api/v2/metrics/{metric}/tags.
func (a *API) deleteTagConfiguration(w http.ResponseWriter, r *http.Request) {
	err := a.opts.Store.EditTagConfiguration(r.PathValue("metric"), func(old *payload.TagConfiguration) (*payload.TagConfiguration, error) {
		if old == nil {
			return nil, errNotConfigured
		}
		return nil, nil
	})
	switch {
	case errors.Is(err, errNotConfigured):
		answer.Error(w, http.StatusNotFound, err.Error())
	case !a.failed(w, r, err):
		w.WriteHeader(http.StatusNoContent)
	}
}
