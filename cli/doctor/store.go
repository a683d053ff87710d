package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"kelpie.dev/kelpie/cli/nearest"
	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/metric/payload"
	"kelpie.dev/kelpie/query"
)

// lookBack is how long a metric or tag may be silent and still count as existing.
const lookBack = 24 * time.Hour

func (e *exam) metricKnown(ctx context.Context) finding {
	if e.api == nil {
		return skipped("there are no keys to ask the query API with")
	}
	names, err := e.api.Metrics(ctx, e.now.Add(-lookBack))
	if err != nil {
		return skipped("the metrics cannot be listed: %v", err)
	}
	for _, l := range e.leaves() {
		if slices.Contains(names, l.query.Metric) {
			continue
		}
		seen := fmt.Sprintf("metric %s had no point within a day; %d other metrics had", l.query.Metric, len(names))
		if near := nearest.To(l.query.Metric, names, 5); len(near) > 0 {
			return broken(seen+"; close to it are: "+strings.Join(near, ", "), "no metric of this name arrives; the name may be misspelt",
				fmt.Sprintf("correct %s, or what the application sends", l.wanted.where))
		}
		return broken(seen, "the application does not send this metric, or not to the agent",
			"check that the application's DD_AGENT_HOST is its node's address (status.hostIP), its port 8125, and that it has had traffic; kelpie query 'avg:"+l.query.Metric+"{*}' shows when it arrives")
	}
	return ok("the metrics arrive")
}

// ask evaluates queries over the last window, all in one request.
func (e *exam) ask(ctx context.Context, window time.Duration, queries ...string) (*payload.QueryResponse, error) {
	return e.api.Query(ctx, queries, e.now.Add(-window), e.now)
}

// hasData reports for each of n queries of a request whether it has a point.
func hasData(resp *payload.QueryResponse, n int) []bool {
	out := make([]bool, n)
	for _, s := range resp.Series {
		i := 0
		if s.QueryIndex != nil {
			i = *s.QueryIndex
		}
		if _, found := newest(s); found && i >= 0 && i < n {
			out[i] = true
		}
	}
	return out
}

// newest returns the end of the newest bucket of s that has a value.
func newest(s payload.QuerySeries) (time.Time, bool) {
	for i := len(s.Pointlist) - 1; i >= 0; i-- {
		if p := s.Pointlist[i]; p[0] != nil && p[1] != nil {
			return time.UnixMilli(int64(*p[0])).Add(time.Duration(s.Interval) * time.Second), true
		}
	}
	return time.Time{}, false
}

// plain is the query that reads a leaf's metric in a scope and nothing more.
func plain(q *query.Query, scope query.Scope) string {
	return "avg:" + q.Metric + "{" + scope.String() + "}"
}

func (e *exam) scopeMatches(ctx context.Context) finding {
	leaves := e.leaves()
	if e.api == nil || len(leaves) == 0 {
		return skipped("there are no keys to ask the query API with, or no query to ask")
	}
	for _, l := range leaves {
		resp, err := e.ask(ctx, lookBack, plain(l.query, l.query.Scope))
		if err != nil {
			return skipped("%v", err)
		}
		if hasData(resp, 1)[0] {
			continue
		}
		f, err := e.wrongTag(ctx, l)
		if err != nil {
			return broken(fmt.Sprintf("no series of %s is in {%s}", l.query.Metric, l.query.Scope), "a tag of the selector matches nothing", "correct "+l.wanted.where)
		}
		return f
	}
	return ok("each scope matches series of its metric")
}

// wrongTag finds the term of a scope that no series meets, and what the metric
// has in its place.
func (e *exam) wrongTag(ctx context.Context, l leaf) (finding, error) {
	terms := []query.Scope{l.query.Scope}
	if and, is := l.query.Scope.(*query.And); is {
		terms = and.Terms
	}
	queries := make([]string, len(terms))
	for i, t := range terms {
		queries[i] = plain(l.query, t)
	}
	resp, err := e.ask(ctx, lookBack, queries...)
	if err != nil {
		return finding{}, err
	}
	var guilty query.Scope
	var good []query.Scope
	for i, has := range hasData(resp, len(terms)) {
		if has {
			good = append(good, terms[i])
		} else if guilty == nil {
			guilty = terms[i]
		}
	}
	if guilty == nil {
		return broken(fmt.Sprintf("each of the tags in {%s} occurs on series of %s, but never all on one", l.query.Scope, l.query.Metric),
			"no series has this combination of tags", fmt.Sprintf("correct %s; kelpie query 'avg:%s{*} by {%s}' shows the combinations", l.wanted.where, l.query.Metric, strings.Join(keysOf(terms), ","))), nil
	}
	seen := fmt.Sprintf("no series of %s has %s", l.query.Metric, guilty)
	if not, is := guilty.(*query.Not); is {
		return broken(fmt.Sprintf("every series of %s has %s, which the scope excludes", l.query.Metric, not.X), "the selector excludes all series", "correct "+l.wanted.where), nil
	}
	return e.instead(ctx, l, guilty, good, seen), nil
}

// usualKeys are shown when a metric lacks a key altogether.
var usualKeys = []string{"kube_namespace", "kube_deployment", "kube_service", "pod_name", "env", "service", "version", "host"}

// instead says what values the guilty term's key has.
func (e *exam) instead(ctx context.Context, l leaf, guilty query.Scope, good []query.Scope, seen string) finding {
	keys := keysOf([]query.Scope{guilty})
	if len(keys) != 1 {
		return broken(seen, "a tag of the selector matches nothing", "correct "+l.wanted.where)
	}
	key := keys[0]
	values := e.values(ctx, l.query, good, key)
	if len(values) == 0 && len(good) > 0 {
		values = e.values(ctx, l.query, nil, key)
	}
	if len(values) == 0 {
		var there []string
		for _, k := range usualKeys {
			if len(e.values(ctx, l.query, nil, k)) > 0 {
				there = append(there, k)
			}
		}
		if len(there) > 0 {
			seen += "; of the usual keys it has " + strings.Join(there, ", ")
		}
		return broken(seen, fmt.Sprintf("wrong tag: the metric does not have the key %s at all", key), fmt.Sprintf("correct %s, or let the application send the tag", l.wanted.where))
	}
	seen += fmt.Sprintf("; %s is one of: %s", key, join(values, ", ", 10))
	mend := "correct " + l.wanted.where
	if tag, is := guilty.(*query.Tag); is {
		if near := nearest.To(tag.Value, values, 1); len(near) > 0 {
			mend += fmt.Sprintf(": did you mean %s:%s?", key, near[0])
		} else if len(values) == 1 {
			mend += fmt.Sprintf(": %s:%s is the only one there", key, values[0])
		}
	}
	return broken(seen, "wrong tag: "+guilty.String()+" matches nothing", mend)
}

// values returns the values of key on the series of a metric that are in all of
// scopes. It is a hint: when it cannot be had, there is none.
func (e *exam) values(ctx context.Context, q *query.Query, scopes []query.Scope, key string) []string {
	var scope query.Scope = query.All{}
	switch len(scopes) {
	case 0:
	case 1:
		scope = scopes[0]
	default:
		scope = &query.And{Terms: scopes}
	}
	resp, err := e.ask(ctx, lookBack, plain(q, scope)+" by {"+key+"}")
	if err != nil {
		return nil
	}
	var values []string
	for _, s := range resp.Series {
		for _, tag := range s.TagSet {
			if v, has := strings.CutPrefix(tag, key+":"); has && v != "N/A" {
				values = append(values, v)
			}
		}
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// keysOf returns the tag keys that scopes name.
func keysOf(scopes []query.Scope) []string {
	var keys []string
	for _, s := range scopes {
		switch s := s.(type) {
		case *query.Tag:
			keys = append(keys, s.Key)
		case *query.In:
			keys = append(keys, s.Key)
		case *query.Not:
			keys = append(keys, keysOf([]query.Scope{s.X})...)
		case *query.And:
			keys = append(keys, keysOf(s.Terms)...)
		case *query.Or:
			keys = append(keys, keysOf(s.Terms)...)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// queryAccepted evaluates each query as the cluster agent does, and keeps the
// age of its newest point.
func (e *exam) queryAccepted(ctx context.Context) finding {
	if e.api == nil {
		return skipped("there are no keys to ask the query API with")
	}
	asked := 0
	for _, w := range e.wanted {
		if w.expr == nil {
			continue
		}
		asked++
		for _, window := range []time.Duration{max(10*time.Minute, 2*w.maxAge), lookBack} {
			resp, err := e.ask(ctx, window, w.query)
			var api *datadog.APIError
			switch {
			case errors.As(err, &api) && api.Status < 500:
				return broken(fmt.Sprintf("%s: %v", w.query, api), e.holder()+" refuses the query", "correct "+w.where)
			case err != nil:
				return skipped("%v", err)
			case len(resp.Series) > 1:
				return broken(fmt.Sprintf("%s gives %d series", w.query, len(resp.Series)), "an autoscaler needs one value, and the query gives several",
					"remove \"by {…}\" from "+w.where+", or aggregate")
			}
			if len(resp.Series) == 1 {
				if t, found := newest(resp.Series[0]); found {
					w.found, w.age = true, max(0, e.now.Sub(t))
					break
				}
			}
		}
	}
	if asked == 0 {
		return skipped("only the cluster agent can fill in the queries' %%%%templates%%%%")
	}
	return ok("%d queries evaluate", asked)
}

// dataFresh says when the application sent the last point.
func (e *exam) dataFresh(context.Context) finding {
	if e.api == nil {
		return skipped("there are no keys to ask the query API with")
	}
	var seen []string
	for _, w := range e.wanted {
		switch {
		case w.expr == nil:
			continue
		case !w.found:
			return broken(fmt.Sprintf("%s had no value within a day, although its series have", w.query), "the query's functions leave no value", "correct "+w.where)
		case w.age > w.maxAge:
			return broken(fmt.Sprintf("the newest point of %s is %s old; older than %s is not used", w.query, w.age.Truncate(time.Second), w.maxAge),
				"the application has stopped sending the metric, or has no traffic",
				"see that the application runs and sends; a counter without traffic is silent, and silence is not zero: write default_zero(…) around the query where it should be")
		}
		seen = append(seen, fmt.Sprintf("%s old", w.age.Truncate(time.Second)))
	}
	if len(seen) == 0 {
		return skipped("only the cluster agent can fill in the queries' %%%%templates%%%%")
	}
	return ok("the newest points are %s", strings.Join(seen, ", "))
}
