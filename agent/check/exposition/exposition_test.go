package exposition

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

func all(string) bool { return true }

func describe(f *dto.MetricFamily) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", f.GetName(), f.GetType())
	for _, m := range f.GetMetric() {
		b.WriteString(" [")
		for _, l := range m.GetLabel() {
			fmt.Fprintf(&b, "%s=%s ", l.GetName(), l.GetValue())
		}
		switch {
		case m.GetHistogram() != nil:
			fmt.Fprintf(&b, "n=%d buckets=%d", m.GetHistogram().GetSampleCount(), len(m.GetHistogram().GetBucket()))
		case m.GetSummary() != nil:
			fmt.Fprintf(&b, "n=%d quantiles=%d", m.GetSummary().GetSampleCount(), len(m.GetSummary().GetQuantile()))
		default:
			fmt.Fprint(&b, m.GetCounter().GetValue()+m.GetGauge().GetValue()+m.GetUntyped().GetValue())
		}
		b.WriteString("]")
	}
	return b.String()
}

func TestFamilies(t *testing.T) {
	for _, c := range []struct {
		name, page string
		want       []string
		err        string
	}{
		{"empty", "", nil, ""},
		{"comments", "# a comment\n\n# EOF\n", nil, ""},
		{"types", "# HELP a help\n# TYPE a counter\na{x=\"1\"} 1 1700000000000\na 2\n# TYPE b gauge\nb 3\nc 4\n", []string{"a COUNTER [x=1 1] [2]", "b GAUGE [3]", "c UNTYPED [4]"}, ""},
		{"histogram", "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_sum 4\nh_count 3\nh_count_of_others 9\n", []string{"h HISTOGRAM [n=3 buckets=2]", "h_count_of_others UNTYPED [9]"}, ""},
		{"summary", "# TYPE s summary\ns{quantile=\"0.5\"} 2\ns_sum 4\ns_count 3\n", []string{"s SUMMARY [n=3 quantiles=1]"}, ""},
		{"no newline at the end", "# TYPE a gauge\na 1", []string{"a GAUGE [1]"}, ""},
		{"parts", "# TYPE a gauge\na 1\nb 2\na{x=\"y\"} 3\n", []string{"a GAUGE [1]", "b UNTYPED [2]", "a UNTYPED [x=y 3]"}, ""},
		{"a bad family costs no other", "a 1\nb{ 2\nc 3\nd x\n", []string{"a UNTYPED [1]", "c UNTYPED [3]"}, `2 metric families cannot be read, the first is "b"`},
		{"not wanted", "secret{ broken\na 1\n", []string{"a UNTYPED [1]"}, ""},
		{"not metrics", "<html>\n", nil, "cannot be read"},
		{"binary", "\x00\xff\n", nil, "cannot be read"},
	} {
		var got []string
		err := Families([]byte(c.page), func(name string) bool { return name != "secret" }, func(f *dto.MetricFamily) { got = append(got, describe(f)) })
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, d)
		}
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
	}
}

// TestFamilyByFamilyIsTheSame holds the reading by families to the library's
// reading of the whole page.
func TestFamilyByFamilyIsTheSame(t *testing.T) {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "h\n\\"}, []string{"path"})
	histogram := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "latency"})
	summary := prometheus.NewSummary(prometheus.SummaryOpts{Name: "size", Objectives: map[float64]float64{0.5: 0.1}})
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "requests"})
	registry.MustRegister(counter, histogram, summary, gauge)
	counter.WithLabelValues("/a b{}\"\\\n# TYPE x").Add(3)
	counter.WithLabelValues("").Add(1)
	histogram.Observe(0.3)
	summary.Observe(7)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	want := map[string]string{}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&page, f); err != nil {
			t.Fatal(err)
		}
		want[f.GetName()] = describe(f)
	}
	// The text tells the bucket +Inf, which the registry leaves out.
	want["latency"] = strings.Replace(want["latency"], "buckets=11", "buckets=12", 1)
	got := map[string]string{}
	if err := Families(page.Bytes(), all, func(f *dto.MetricFamily) { got[f.GetName()] = describe(f) }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func FuzzFamilies(f *testing.F) {
	f.Add([]byte("# HELP a b\n# TYPE a counter\na{x=\"y\"} 1 2\n"))
	f.Add([]byte("# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n"))
	f.Add([]byte("{\"a.b\",x=\"y\"} 1\n"))
	f.Add([]byte("a_count 1\n# TYPE a summary\na{quantile=\"x\"} 1\n"))
	f.Fuzz(func(t *testing.T, page []byte) {
		before := bytes.Clone(page)
		_ = Families(page, all, func(f *dto.MetricFamily) {
			if f.GetName() == "" {
				t.Error("a family without a name")
			}
		})
		if !bytes.Equal(before, page) {
			t.Error("the page was modified")
		}
	})
}
