package query_test

import (
	"context"
	"errors"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// seed adds every query of the scripts to f's corpus, each with args.
func seed(f *testing.F, args ...uint64) {
	files, err := filepath.Glob("testdata/*.test")
	if err != nil || len(files) == 0 {
		f.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			verb, rest, _ := strings.Cut(line, " ")
			if verb != "eval" && verb != "value" {
				continue
			}
			_, q, _ := strings.Cut(strings.TrimSpace(rest), " ")
			if len(args) == 0 {
				f.Add(q)
			}
			for _, a := range args {
				f.Add(q, a)
			}
		}
	}
}

// FuzzParse: any text parses or fails with a position in it; what parses prints
// to a text that parses to the same print.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string) {
		batch, err := query.ParseBatch(text)
		if err != nil {
			e, ok := err.(*query.Error) //nolint:errorlint // the contract is this very type
			if !ok || e.Offset < 0 || e.Offset > len(text) || e.Caret() == "" {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		for _, e := range batch {
			printed := e.String()
			if len(printed) > query.MaxLength {
				continue
			}
			again, err := query.Parse(printed)
			if err != nil {
				t.Fatalf("%q printed as %q: %v", text, printed, err)
			}
			if again.String() != printed {
				t.Fatalf("%q, then %q", printed, again)
			}
		}
	})
}

// asDistributions makes a sketch of every point.
type asDistributions struct{ sourceFunc }

func (a asDistributions) Distributions(ctx context.Context, sel query.Selector, from, to int64) iter.Seq2[*metric.Distribution, error] {
	return func(yield func(*metric.Distribution, error) bool) {
		all, _ := a.Select(ctx, sel, from, to)
		for _, s := range all {
			d := metric.Distribution{Name: s.Name, Host: s.Host, Tags: s.Tags}
			for _, p := range s.Points {
				var b metric.SketchBuilder
				b.Add(p.Value, 1)
				b.Add(-p.Value, 1)
				d.Points = append(d.Points, metric.SketchPoint{Time: p.Time, Sketch: b.Sketch()})
			}
			if !yield(&d, nil) {
				return
			}
		}
	}
}

// randomSource answers any selection with contexts whose types, intervals,
// points and values follow from the seed alone, however much of them is read.
func randomSource(seed uint64) sourceFunc {
	const oldest, newest = fuzzTo - 1800, fuzzTo
	return func(_ context.Context, sel query.Selector, from, to int64) ([]metric.Series, error) {
		random := rand.New(rand.NewPCG(seed, uint64(len(sel.Metric))))
		scale := []float64{0, 1, 1e-9, 1e300}[random.IntN(4)]
		var out []metric.Series
		for _, host := range []string{"a", "b", "", "d"} {
			s := metric.Series{
				Name: sel.Metric, Host: host, Type: metric.Type(random.IntN(4)), Interval: []int64{0, 1, 10, 60}[random.IntN(4)],
				Tags: metric.NewTags("env:prod", "team:x", "team:y", "bare"),
			}
			every := 1 + random.Int64N(40)
			for at := oldest + random.Int64N(100); at <= newest; at += every {
				v := random.NormFloat64() * scale
				if random.IntN(50) == 0 {
					v = math.NaN()
				}
				if random.IntN(5) > 0 && at >= from && at <= to {
					s.Points = append(s.Points, metric.Point{Time: at, Value: v})
				}
			}
			if len(s.Points) > 0 && sel.Scope.Match(query.TagsOf(s)) {
				out = append(out, s)
			}
		}
		return out, nil
	}
}

const fuzzTo = 1_700_000_603

// FuzzEval: what parses and passes Check evaluates, on any data, to well-formed
// results.
func FuzzEval(f *testing.F) {
	seed(f, 1)
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		e, err := query.Parse(text)
		if err != nil {
			return
		}
		refused := query.Check(e)
		w := query.Window{From: fuzzTo - 1 - int64(seed%1000), To: fuzzTo}
		src := randomSource(seed)
		for _, src := range []query.Source{src, asDistributions{src}} {
			results, err := query.Eval(t.Context(), src, e, w)
			if (refused == nil) != (err == nil) && (err == nil || !strings.Contains(err.Error(), "needs a distribution") && !isLimit(err)) {
				t.Fatalf("%q: Check says %v, Eval %v", text, refused, err)
			}
			for i, r := range results {
				if i > 0 && slices.Compare(results[i-1].Tags, r.Tags) >= 0 {
					t.Fatalf("%q: %v before %v", text, results[i-1].Tags, r.Tags)
				}
				for _, points := range [][]query.Point{r.Points, r.Lower, r.Upper} {
					wellFormed(t, text, points, w, r.Interval)
				}
			}
			value, ok, err := query.Value(t.Context(), src, e, w.To)
			if err == nil && refused != nil {
				t.Fatalf("%q: Check says %v, Value nothing", text, refused)
			}
			if ok && (math.IsNaN(value.Value) || math.IsInf(value.Value, 0) || value.Time > w.To) {
				t.Fatalf("%q: value %v", text, value)
			}
		}
	})
}

// wellFormed holds points to be ascending bucket starts in w, and finite.
func wellFormed(t *testing.T, text string, points []query.Point, w query.Window, interval int64) {
	last := w.From - 1
	for _, p := range points {
		if p.Time <= last || p.Time > w.To || p.Time%interval != 0 {
			t.Fatalf("%q: point at %d after %d, interval %d", text, p.Time, last, interval)
		}
		if math.IsInf(p.Value, 0) {
			t.Fatalf("%q: %v at %d", text, p.Value, p.Time)
		}
		last = p.Time
	}
}

func isLimit(err error) bool {
	var e *query.Error
	return errors.As(err, &e) && e.Kind == query.Limit
}
