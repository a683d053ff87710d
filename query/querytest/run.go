package querytest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// Base is the time of the scripts' 0s that suits targets which accept any time.
const Base int64 = 1_700_006_400

// A Target answers the scripts. Each script gets a new one.
type Target interface {
	// Load stores series and distributions and returns once they can be queried.
	Load(ctx context.Context, series []metric.Series, distributions []metric.Distribution) error
	// Query evaluates a batch over from..to and returns the results of each of
	// its queries. The text of an error contains that of the *query.Error.
	Query(ctx context.Context, text string, from, to int64) ([][]query.Result, error)
}

// A Valuer is a Target that also answers the value of a query at an instant.
// Scripts skip their value steps on a Target that is none.
type Valuer interface {
	Value(ctx context.Context, text string, at int64) (query.Reading, bool, error)
}

// A Store is a Source that can be loaded.
type Store interface {
	query.DistributionSource
	query.SettledSource
	Load(ctx context.Context, series []metric.Series, distributions []metric.Distribution) error
}

// OnStore returns the Target that evaluates queries over s with package query.
// It is a Valuer.
func OnStore(s Store) Target { return onStore{s} }

type onStore struct{ Store }

func (o onStore) Query(ctx context.Context, text string, from, to int64) ([][]query.Result, error) {
	batch, err := query.ParseBatch(text)
	if err != nil {
		return nil, err
	}
	out := make([][]query.Result, len(batch))
	for i, e := range batch {
		if out[i], err = query.Eval(ctx, o.Store, e, query.Window{From: from, To: to}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (o onStore) Value(ctx context.Context, text string, at int64) (query.Reading, bool, error) {
	e, err := query.Parse(text)
	if err != nil {
		return query.Reading{}, false, err
	}
	return query.Value(ctx, o.Store, e, at)
}

// Run runs every *.test script of dir, each on a Target of its own. The
// scripts' time 0s is base, a multiple of an hour.
//
// A script is steps, each a line followed by indented lines. "#" starts a
// comment. Times are offsets such as 90s or 5m.
//
//	load 10s type=rate interval=10s from=0s unit=byte
//	  metric.name{host:a,env:prod} 10 20 _ 30x3
//
// stores points 10 s apart from the offset "from"; "_" is no point and 30x3 is
// three times 30. Type is gauge unless given, interval is the step, and a host:
// tag is the series' host.
//
//	load 10s type=distribution
//	  metric.name{host:a} 1,2,3 1..100 5*1000,7
//
// stores sketches, each of the values listed: 1..100 is every whole number from
// 1 to 100, and 5*1000 a thousand times 5.
//
//	eval 0s..60s avg:metric.name{env:prod} by {host}
//	  {host:a} 10 20 null
//	    expression avg:metric.name{env:prod,host:a}
//
// evaluates a query and lists all results in order, ungrouped ones as {*}. The
// values stand at the first bucket and every step after it, a step being that
// of the last load or the result's interval if that is larger; "_" is no point,
// and a point off the steps is written 7@15s. Lines below a result hold one
// attribute each to its text: metric, expression, scope, aggr, unit, interval.
// Results of the second query of a batch start with "1 ". Instead of results,
// "none" expects none, and "error …" an error with that text.
//
//	value 65s sum:metric.name{*}
//	  42@60s
//
// evaluates a query at an instant, to a value and the time of its newest point.
func Run(t *testing.T, dir string, base int64, newTarget func(t *testing.T) Target) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.test"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s (%v)", dir, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".test"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			steps, err := parseScript(string(text))
			if err != nil {
				t.Fatalf("%s:%v", file, err)
			}
			r := runner{file: file, base: base, target: newTarget(t)}
			for _, s := range steps {
				r.run(t, s)
			}
		})
	}
}

type runner struct {
	file   string
	base   int64
	target Target
	step   int64 // of the last load
}

func (r *runner) run(t *testing.T, s step) {
	t.Helper()
	var got []string
	switch s.verb {
	case "load":
		series, distributions, every, err := s.series(r.base)
		if err == nil {
			err = r.target.Load(t.Context(), series, distributions)
		}
		if err != nil {
			t.Fatalf("%s:%d: load: %v", r.file, s.line, err)
		}
		r.step = every
		return
	case "eval":
		got = r.eval(t, s)
	case "value":
		v, ok := r.target.(Valuer)
		if !ok {
			return
		}
		reading, ok, err := v.Value(t.Context(), s.query, r.base+s.from)
		switch {
		case err != nil:
			got = []string{"error " + err.Error()}
		case !ok:
			got = []string{"none"}
		default:
			got = []string{fmt.Sprintf("%s@%ds", number(reading.Value), reading.Time-r.base)}
		}
	}
	want := s.want
	if len(got) == 1 && len(want) == 1 && strings.HasPrefix(got[0], "error ") && strings.Contains(got[0], strings.TrimPrefix(want[0], "error ")) {
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s:%d: %s (-want +got):\n%s", r.file, s.line, s.query, diff)
	}
}

// eval renders the results of an eval step as the script writes them, with the
// attributes that the script asks for.
func (r *runner) eval(t *testing.T, s step) []string {
	batch, err := r.target.Query(t.Context(), s.query, r.base+s.from, r.base+s.to)
	if err != nil {
		return []string{"error " + err.Error()}
	}
	var lines []string
	asked := s.asked()
	n := 0 // results so far
	for i, results := range batch {
		for _, result := range results {
			line := r.render(result, r.base+s.from)
			if i > 0 {
				line = strconv.Itoa(i) + " " + line
			}
			lines = append(lines, line)
			if n < len(asked) {
				for _, name := range asked[n] {
					lines = append(lines, strings.TrimRight("  "+name+" "+attribute(result, name), " "))
				}
			}
			n++
		}
	}
	if n == 0 {
		return []string{"none"}
	}
	return lines
}

// render writes a result's tags and points.
func (r *runner) render(result query.Result, from int64) string {
	tags := "*"
	if len(result.Tags) > 0 {
		tags = result.Tags.String()
	}
	words := []string{"{" + tags + "}"}
	every := max(result.Interval, r.step)
	first := (from + result.Interval - 1) / result.Interval * result.Interval
	next := first
	for _, p := range result.Points {
		if (p.Time-first)%every != 0 {
			words = append(words, fmt.Sprintf("%s@%ds", number(p.Value), p.Time-r.base))
			continue
		}
		for ; next < p.Time; next += every {
			words = append(words, "_")
		}
		words = append(words, number(p.Value))
		next += every
	}
	return strings.Join(words, " ")
}

func attribute(r query.Result, name string) string {
	switch name {
	case "metric":
		return r.Metric
	case "expression":
		return r.Expression
	case "scope":
		return r.Scope
	case "aggr":
		return r.Aggregator
	case "unit":
		return r.Unit
	case "interval":
		return fmt.Sprintf("%ds", r.Interval)
	}
	return "is not an attribute"
}

// number writes v with nine significant digits, so that scripts can say 0.1.
func number(v float64) string {
	if (query.Point{Value: v}).Null() {
		return "null"
	}
	return strconv.FormatFloat(v, 'g', 9, 64)
}

// asked returns the attribute names below each expected result.
func (s step) asked() [][]string {
	var asked [][]string
	for _, l := range s.want {
		if name, isAttribute := strings.CutPrefix(l, "  "); isAttribute && len(asked) > 0 {
			name, _, _ = strings.Cut(name, " ")
			asked[len(asked)-1] = append(asked[len(asked)-1], name)
			continue
		}
		asked = append(asked, nil)
	}
	return asked
}
