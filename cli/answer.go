package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"kelpie.dev/kelpie/metric/payload"
)

// answer is what "kelpie query -o json" prints. Series bear the names that
// Datadog's query API gives them, for readers who know it. Fields are added,
// never renamed or removed.
type answer struct {
	Query  string        `json:"query"`
	From   time.Time     `json:"from"`
	To     time.Time     `json:"to"`
	Series []answerGroup `json:"series"`         // one a group; empty when there is no data
	Near   []nearNames   `json:"near,omitempty"` // only without data: the metrics asked for
}

// answerGroup is one group of the answer with at least one value.
type answerGroup struct {
	Query    int          `json:"query_index"` // of several queries separated by commas, from 0
	Metric   string       `json:"metric"`
	Scope    string       `json:"scope"`
	Tags     []string     `json:"tag_set"`
	Interval int64        `json:"interval"`         // seconds
	Points   [][2]float64 `json:"pointlist"`        // start of the bucket in Unix milliseconds, value
	Age      float64      `json:"last_age_seconds"` // of the last bucket's start, now
}

// nearNames is a metric without data and the names that are close to it.
type nearNames struct {
	Metric string   `json:"metric"`
	Known  bool     `json:"known"` // had points within the last day
	Near   []string `json:"near"`
}

func newAnswer(resp *payload.QueryResponse, text string, from, to, now time.Time) *answer {
	a := &answer{Query: text, From: from.UTC(), To: to.UTC(), Series: []answerGroup{}}
	for _, s := range resp.Series {
		g := answerGroup{Metric: s.Metric, Scope: s.Scope, Tags: s.TagSet, Interval: s.Interval}
		if s.QueryIndex != nil {
			g.Query = *s.QueryIndex
		}
		if g.Tags == nil {
			g.Tags = []string{}
		}
		for _, p := range s.Pointlist {
			if p[0] != nil && p[1] != nil {
				g.Points = append(g.Points, [2]float64{*p[0], *p[1]})
			}
		}
		if len(g.Points) == 0 {
			continue
		}
		g.Age = max(0, now.Sub(bucket(g.Points[len(g.Points)-1])).Seconds())
		a.Series = append(a.Series, g)
	}
	return a
}

// bucket is when a point's bucket begins.
func bucket(p [2]float64) time.Time { return time.UnixMilli(int64(p[0])) }

// print writes the newest tail points of each series, all when tail is 0.
func (a *answer) print(w io.Writer, tail int) error {
	var b strings.Builder
	for i, g := range a.Series {
		if i > 0 {
			b.WriteByte('\n')
		}
		g.print(&b, tail)
	}
	if len(a.Series) == 0 {
		a.printNothing(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (g *answerGroup) print(b *strings.Builder, tail int) {
	fmt.Fprintf(b, "%s  {%s}  points: %d, buckets of %s\n\n", g.Metric, g.Scope, len(g.Points), time.Duration(g.Interval)*time.Second)
	points := g.Points
	if tail > 0 && len(points) > tail {
		points = points[len(points)-tail:]
	}
	tw := tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(tw, "TIME\tVALUE")
	for _, p := range points {
		_, _ = fmt.Fprintf(tw, "%s\t%s\n", stamp(bucket(p)), number(p[1]))
	}
	_ = tw.Flush() // a Builder accepts all
	if left := len(g.Points) - len(points); left > 0 {
		fmt.Fprintf(b, "(%d earlier points; --tail 0 prints all)\n", left)
	}
	last := g.Points[len(g.Points)-1]
	fmt.Fprintf(b, "\nlast: %s, its bucket began %s ago\n", number(last[1]), seconds(g.Age))
}

func (a *answer) printNothing(b *strings.Builder) {
	fmt.Fprintf(b, "no data between %s and %s for %s\n", stamp(a.From), stamp(a.To), a.Query)
	for _, n := range a.Near {
		switch {
		case n.Known:
			fmt.Fprintf(b, "metric %s had points within the last day: check the tags of the query, or look further back with --from\n", n.Metric)
		case len(n.Near) > 0:
			fmt.Fprintf(b, "metric %s had no point within the last day; close to it are: %s\n", n.Metric, strings.Join(n.Near, ", "))
		default:
			fmt.Fprintf(b, "metric %s had no point within the last day, nor had any with a similar name\n", n.Metric)
		}
	}
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// seconds prints an age as people say it: 4s, 3m20s, 2h5m, 9d.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second)).Truncate(time.Second)
	if d >= 48*time.Hour {
		return strconv.Itoa(int(d.Hours()/24)) + "d"
	}
	if d >= time.Hour {
		return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
	}
	return d.String()
}
