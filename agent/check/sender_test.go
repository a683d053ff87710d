package check

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSender runs the scripts under testdata/sender. Their commands are
//
//	run at=SECONDS [limit=N]  one run of a check, with one submission a line:
//	    gauge|rate|count|histogram NAME VALUE [TAG…]
//	    total NAME VALUE [TAG…]   a monotonic count; total! when all of it is new
//	    rate@SECONDS NAME VALUE [TAG…]  a total that was read at another time
//	    check NAME STATUS [TAG…]
//	remembered                prints of how many contexts something is remembered
//
// The instance runs every 15 s on the host "node", with the tag "all:1".
func TestSender(t *testing.T) {
	datadriven.Walk(t, "testdata/sender", func(t *testing.T, path string) {
		s := newSender()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "remembered" {
				return fmt.Sprintln(len(s.remember))
			}
			var at int64
			d.ScanArgs(t, "at", &at)
			d.MaybeScanArgs(t, "limit", &s.limit)
			s.begin(time.Unix(at, 0))
			for _, line := range strings.Split(d.Input, "\n") {
				submitLine(t, d, s, strings.Fields(line))
			}
			series, checks := s.end(surroundings{host: "node", tags: metric.NewTags("all:1"), interval: 15 * time.Second})
			return describe(series, checks) + describeDropped(s)
		})
	})
}

func submitLine(t *testing.T, d *datadriven.TestData, s *Sender, f []string) {
	if len(f) == 0 {
		return
	}
	if len(f) < 3 {
		d.Fatalf(t, "too short: %q", f)
	}
	v, err := strconv.ParseFloat(f[2], 64)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	name, tags := f[1], f[3:]
	switch method, at, _ := strings.Cut(f[0], "@"); method {
	case "gauge":
		s.Gauge(name, v, tags...)
	case "count":
		s.Count(name, v, tags...)
	case "histogram":
		s.Histogram(name, v, tags...)
	case "total", "total!":
		s.MonotonicCount(name, v, method == "total!", tags...)
	case "check":
		s.ServiceCheck(name, metric.CheckStatus(v), "", tags...)
	case "rate":
		if at == "" {
			s.Rate(name, v, tags...)
			return
		}
		seconds, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		s.RateAt(name, v, time.Unix(seconds, 0), tags...)
	default:
		d.Fatalf(t, "unknown submission %q", f[0])
	}
}

// describe prints series as "name{tags} type/interval time:value".
func describe(series []metric.Series, checks []metric.ServiceCheck) string {
	var b strings.Builder
	for _, s := range series {
		fmt.Fprintf(&b, "%s{%s} %s/%ds", s.Name, s.Tags, s.Type, s.Interval)
		for _, p := range s.Points {
			fmt.Fprintf(&b, " %d:%v", p.Time, p.Value)
		}
		if s.Host != "node" {
			fmt.Fprintf(&b, " host=%q", s.Host)
		}
		b.WriteByte('\n')
	}
	for _, c := range checks {
		fmt.Fprintf(&b, "check %s{%s} %d at %d\n", c.Name, c.Tags, c.Status, c.Time)
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

func describeDropped(s *Sender) string {
	var b strings.Builder
	for _, d := range Drops {
		if n := s.dropped[d]; n > 0 {
			fmt.Fprintf(&b, "dropped %d: %s\n", n, d)
		}
	}
	return b.String()
}

func TestHistogramRanks(t *testing.T) {
	// The vector of reference metrics-pipeline A2.2, and its smallest cases.
	for _, c := range []struct {
		values                []float64
		max, median, avg, p95 float64
	}{
		{[]float64{1, 1, 1, 2, 2, 2, 3, 3}, 3, 2, 1.875, 3},
		{[]float64{7}, 7, 7, 7, 7},
		{[]float64{2, 1}, 2, 1, 1.5, 2},
	} {
		s := newSender()
		s.begin(time.Unix(0, 0))
		for _, v := range c.values {
			s.Histogram("h", v)
		}
		series, _ := s.end(surroundings{interval: DefaultInterval})
		got := map[string]float64{}
		for _, one := range series {
			got[one.Name] = one.Points[0].Value
		}
		want := map[string]float64{"h.max": c.max, "h.median": c.median, "h.avg": c.avg, "h.95percentile": c.p95, "h.count": float64(len(c.values))}
		for name, v := range want {
			if math.Abs(got[name]-v) > 1e-12 {
				t.Errorf("%v: %s = %v, want %v", c.values, name, got[name], v)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%v: got %v", c.values, got)
		}
	}
}
