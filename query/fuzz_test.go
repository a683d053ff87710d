package query_test

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// seed adds every query of the scripts to f's corpus.
func seed(f *testing.F) {
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
			if _, rest, ok := strings.Cut(line, "eval "); ok {
				_, q, _ := strings.Cut(strings.TrimSpace(rest), " ")
				f.Add(q)
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

// FuzzEval: what parses and passes Check evaluates to well-formed results.
func FuzzEval(f *testing.F) {
	seed(f)
	src := sourceFunc(func(_ context.Context, sel query.Selector, from, to int64) ([]metric.Series, error) {
		var out []metric.Series
		for i, host := range []string{"a", "b", ""} {
			s := metric.Series{Name: sel.Metric, Host: host, Type: metric.Type(i + 1), Interval: int64(10 * i), Tags: metric.NewTags("env:prod", "team:x", "team:y", "bare")}
			if !sel.Scope.Match(query.TagsOf(s)) {
				continue
			}
			for at := from; at <= min(to, from+900); at += 7 {
				s.Points = append(s.Points, metric.Point{Time: at, Value: float64(at % 13)})
			}
			out = append(out, s)
		}
		return out, nil
	})
	w := query.Window{From: 1_700_000_003, To: 1_700_000_603}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := query.Parse(text)
		if err != nil {
			return
		}
		refused := query.Check(e)
		for _, src := range []query.Source{src, asDistributions{src}} {
			results, err := query.Eval(t.Context(), src, e, w)
			if (refused == nil) != (err == nil) && (err == nil || !strings.Contains(err.Error(), "needs a distribution") && !isLimit(err)) {
				t.Fatalf("%q: Check says %v, Eval %v", text, refused, err)
			}
			for _, r := range results {
				last := w.From - 1
				for _, p := range r.Points {
					if p.Time <= last || p.Time > w.To || p.Time%r.Interval != 0 {
						t.Fatalf("%q: point at %d after %d, interval %d", text, p.Time, last, r.Interval)
					}
					last = p.Time
				}
			}
			if _, _, err := query.Value(t.Context(), src, e, w.To); err == nil && refused != nil {
				t.Fatalf("%q: Check says %v, Value nothing", text, refused)
			}
		}
	})
}

func isLimit(err error) bool {
	var e *query.Error
	return errors.As(err, &e) && e.Kind == query.Limit
}
