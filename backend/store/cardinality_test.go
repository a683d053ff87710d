package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/metric"
)

// TestLimitsOfTheWholeStore sends five metrics in one batch, the last with an
// impossible point, then all of them again with a later point: what is refused
// must not fail the batch, nor what was taken before.
func TestLimitsOfTheWholeStore(t *testing.T) {
	for _, tt := range []struct {
		name   string
		opts   Options
		want   []string
		reason string
		log    string
	}{
		{"series", Options{MaxSeries: 3}, []string{"m0", "m1", "m2"}, ReasonTotal, "KELPIE_MAX_SERIES "},
		{"names", Options{MaxMetricNames: 2}, []string{"m0", "m1"}, ReasonNames, "KELPIE_MAX_METRIC_NAMES"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			clock := &fixed{t0}
			o := tt.opts
			o.Dir, o.Now, o.MinFree, o.Log = t.TempDir(), clock.now, -1, slog.New(slog.NewTextHandler(&log, nil))
			s := open(t, o)
			for i := range 5 { // one by one, so that each finds what those before it left
				write(t, s, one(fmt.Sprint("m", i), "h", nil, metric.Point{Time: t0, Value: 1}, metric.Point{Time: t0 - 90000, Value: 1}))
			}
			batch := make([]metric.Series, 0, 5)
			for i := range 5 {
				batch = append(batch, one(fmt.Sprint("m", i), "h", nil, metric.Point{Time: t0 + 1, Value: 1}))
			}
			write(t, s, batch...)
			if got := active(t, s, 0); !cmp.Equal(got, tt.want) {
				t.Errorf("listed metrics %v, want %v", got, tt.want)
			}
			for _, name := range tt.want {
				if got := len(read(t, s, name, "*")["h|"]); got != 2 {
					t.Errorf("%s has %d points, want 2", name, got)
				}
			}
			refused := uint64(2 * (5 - len(tt.want)))
			if d := cmp.Diff(map[string]uint64{tt.reason: refused, ReasonPast: 5}, s.Stats().Refused); d != "" {
				t.Errorf("refused (-want +got)\n%s", d)
			}
			st := s.Stats()
			wantNamed := map[string]uint64{}
			for i := len(tt.want); i < 5; i++ {
				wantNamed[fmt.Sprint("m", i)] = 2
			}
			for reason, got := range map[string]map[string]uint64{ReasonCardinality: st.RefusedSeries, ReasonTotal: st.RefusedTotal, ReasonNames: st.RefusedNames} {
				want := map[string]uint64{}
				if reason == tt.reason {
					want = wantNamed
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("named for %s (-want +got)\n%s", reason, d)
				}
			}
			if !strings.Contains(log.String(), fmt.Sprint("m", len(tt.want))) {
				t.Errorf("the log does not name what was refused:\n%s", log.String())
			}
			if n := strings.Count(log.String(), "limit"); n == 0 || !strings.Contains(log.String(), tt.log) || strings.Count(log.String(), tt.log) != 1 {
				t.Errorf("the log must say it once a minute:\n%s", log.String())
			}
			// A lower limit takes nothing back.
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			o.MaxSeries, o.MaxMetricNames = 1, 1
			s = open(t, o)
			write(t, s, one(tt.want[1], "h", nil, metric.Point{Time: t0 + 2, Value: 1}))
			if got := len(read(t, s, tt.want[1], "*")["h|"]); got != 3 {
				t.Errorf("%s has %d points after reopening with lower limits, want 3", tt.want[1], got)
			}
		})
	}
}

// TestTotalLimitWithinABatch has room for two of the series of one batch.
func TestTotalLimitWithinABatch(t *testing.T) {
	s := open(t, Options{Now: (&fixed{t0}).now, MinFree: -1, MaxSeries: 2})
	var batch []metric.Series
	for i := range 4 {
		batch = append(batch, one("m", fmt.Sprint("h", i), nil, metric.Point{Time: t0, Value: 1}))
	}
	write(t, s, batch...)
	if got := len(read(t, s, "m", "*")); got != 2 || s.Stats().Refused[ReasonTotal] != 2 {
		t.Errorf("stored %d series, refused %v; want 2 and 2", got, s.Stats().Refused)
	}
}
