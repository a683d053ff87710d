package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kelpie.dev/kelpie/cli/nearest"
	"kelpie.dev/kelpie/cli/release"
	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/query"
)

// queryCmd is one invocation of "kelpie query".
type queryCmd struct {
	*session
	from, to  string
	url, site string
	tail      int
	output    output
}

func newQuery(s *session) *cobra.Command {
	q := &queryCmd{session: s}
	cmd := &cobra.Command{
		Use:   "query QUERY",
		Short: "Evaluate a query and print its points",
		Long: `query evaluates a query, or several separated by commas, and prints the points
and the age of the last one. The text is parsed here first: a syntax error is
shown with its place and sends no request.

The installation's own keys are read from its Secret, with your rights. With
--url or --site, no Kubernetes is needed: the API there (Datadog's, or a
backend's that you forwarded a port to) is asked with $DD_API_KEY and $DD_APP_KEY.`,
		Example: `  kelpie query 'avg:flask.request.rate{kube_namespace:test}'
  kelpie query 'sum:shop.orders{env:prod} by {region}.as_count()' --from 1h -o json
  kelpie query 'avg:system.load.1{*}' --site datadoghq.eu
  kelpie query 'avg:shop.orders{*}' --url http://localhost:8080`,
		Args: oneQuery,
		RunE: func(cmd *cobra.Command, args []string) error { return q.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&q.from, "from", "15m", "start: an age (90s, 15m, 2h, 1d), a time (RFC 3339), or Unix seconds")
	f.StringVar(&q.to, "to", "now", "end: now, or as for --from")
	f.IntVar(&q.tail, "tail", 20, "print only the newest N points of each series; 0 prints all")
	f.StringVar(&q.url, "url", "", "ask the query API at this URL, without Kubernetes")
	f.StringVar(&q.site, "site", "", "ask Datadog's API at this site, such as datadoghq.eu, without Kubernetes")
	cmd.MarkFlagsMutuallyExclusive("url", "site")
	q.output.flag(cmd)
	return cmd
}

// oneQuery catches the most common mistake: a query that the shell has split.
func oneQuery(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 1:
		return nil
	case 0:
		return errors.New("give a query, such as kelpie query 'avg:my.metric{*}'")
	default:
		return fmt.Errorf("expected one query, got %d words: put the query in single quotes", len(args))
	}
}

func (q *queryCmd) run(cmd *cobra.Command, text string) error {
	exprs, err := query.ParseBatch(text)
	if err != nil {
		return syntaxExit(err)
	}
	now := q.Now()
	from, err := moment(q.from, now)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	to, err := moment(q.to, now)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	if !from.Before(to) {
		return fmt.Errorf("--from (%s) is not before --to (%s)", stamp(from), stamp(to))
	}
	api, keys, err := q.api(cmd.Context())
	if err != nil {
		return err
	}
	defer api.CloseIdle()
	resp, err := api.Query(cmd.Context(), []string{text}, from, to)
	if err != nil {
		return queryExit(err, keys)
	}
	answer := newAnswer(resp, text, from, to, now)
	if len(answer.Series) == 0 {
		answer.Near = missing(cmd.Context(), api, exprs, now)
	}
	if q.output == "json" {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		err = enc.Encode(answer)
	} else {
		err = answer.print(cmd.OutOrStdout(), q.tail)
	}
	if err == nil && len(answer.Series) == 0 {
		err = &exit{code: exitBroken}
	}
	return err
}

// syntaxExit shows a query with a caret under its error.
func syntaxExit(err error) error {
	var e *query.Error
	if !errors.As(err, &e) {
		return err
	}
	return &exit{exitUsage, fmt.Sprintf("the query does not parse: %v\n\n%s", e, indent(e.Caret()))}
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

// api returns the query API to ask and where its keys are from.
func (q *queryCmd) api(ctx context.Context) (*datadog.Client, release.Keys, error) {
	url := q.url
	if q.site != "" {
		url = datadog.APIURL(q.site)
	}
	if url != "" {
		keys := release.Keys{
			API: release.NewKey(q.APIKey, "the environment variable DD_API_KEY"),
			App: release.NewKey(q.AppKey, "the environment variable DD_APP_KEY"),
		}
		for _, k := range []release.Key{keys.API, keys.App} {
			if !k.Set() {
				return nil, keys, fmt.Errorf("%s is not set; with --url and --site the keys come from there", k)
			}
		}
		api, err := datadog.New(datadog.Options{BaseURL: url, APIKey: keys.API.Reveal(), AppKey: keys.App.Reveal()})
		return api, keys, err
	}
	cluster, err := q.connect()
	if err != nil {
		return nil, release.Keys{}, err
	}
	rel, err := release.Find(ctx, cluster, q.kelpieNamespace)
	if err != nil {
		return nil, release.Keys{}, err
	}
	keys, err := rel.KeysOf(ctx, cluster, rel.QueryPod())
	if err != nil {
		return nil, keys, fmt.Errorf("%w\nWithout the right to read that Secret: forward a port to the backend and use --url with your own keys", err)
	}
	api, err := rel.API(cluster, keys)
	return api, keys, err
}

// queryExit says what a refused request means to the person who made it.
func queryExit(err error, keys release.Keys) error {
	var api *datadog.APIError
	if !errors.As(err, &api) {
		return &exit{exitUsage, err.Error() + "\nRun kelpie doctor to see which part does not answer."}
	}
	switch api.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return &exit{exitBroken, fmt.Sprintf("the query API refuses the keys (%v); the API key is %s, the application key is %s", api, keys.API, keys.App)}
	case http.StatusTooManyRequests:
		return &exit{exitBroken, fmt.Sprintf("too many requests (%v); try again in %s", api, api.RetryAfter)}
	default:
		return &exit{exitBroken, err.Error()}
	}
}

// missing returns, for each metric of exprs that had no point within a day, the
// names closest to it. It is a hint: when it cannot be had, there is none.
func missing(ctx context.Context, api *datadog.Client, exprs []query.Expr, now time.Time) []nearNames {
	names, err := api.Metrics(ctx, now.Add(-24*time.Hour))
	if err != nil {
		return nil
	}
	known := make(map[string]bool, len(names))
	for _, n := range names {
		known[n] = true
	}
	var out []nearNames
	asked := map[string]bool{}
	for _, e := range exprs {
		for leaf := range query.Queries(e) {
			if asked[leaf.Metric] {
				continue
			}
			asked[leaf.Metric] = true
			out = append(out, nearNames{Metric: leaf.Metric, Known: known[leaf.Metric], Near: nearest.To(leaf.Metric, names, 5)})
		}
	}
	return out
}

// moment reads a point in time: "now", an age, RFC 3339 or Unix seconds.
func moment(text string, now time.Time) (time.Time, error) {
	if text == "now" {
		return now, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 1e8 {
		return time.Unix(n, 0), nil
	}
	age := strings.TrimPrefix(strings.TrimPrefix(text, "now"), "-")
	if days, ok := strings.CutSuffix(age, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	d, err := time.ParseDuration(age)
	if err != nil || d < 0 {
		return time.Time{}, fmt.Errorf("%q is no time; write an age such as 90s, 15m or 2h, a time such as 2026-08-20T10:00:00Z, or Unix seconds", text)
	}
	return now.Add(-d), nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
