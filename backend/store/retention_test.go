package store

import (
	"path/filepath"
	"testing"
	"time"

	"kelpie.dev/kelpie/metric"
)

// hours writes a point a minute for n hours, and compacts as the TSDB would.
func hours(t *testing.T, s *Store, clock *fixed, n int) {
	t.Helper()
	for i := range n * 60 {
		clock.sec += 60
		write(t, s, one("m", "h", []string{"a:b"}, metric.Point{Time: clock.sec, Value: float64(clock.sec)}))
		writeSketches(t, s, dist("d", "h", nil, sk(clock.sec, 1, 2, float64(i))))
		if i%120 == 119 {
			if err := s.db.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// oldest returns the time of the oldest point, and how many there are.
func oldest(t *testing.T, s *Store, from int64) (oldest int64, n int) {
	t.Helper()
	series, err := s.Select(t.Context(), parseSelector(t, "m", "*"), from, t0+100*3600)
	if err != nil || len(series) != 1 {
		t.Fatal(len(series), err)
	}
	return series[0].Points[0].Time, len(series[0].Points)
}

func TestRetentionByTime(t *testing.T) {
	clock := &fixed{t0}
	s := open(t, Options{Now: clock.now, MinFree: -1, Retention: 4 * time.Hour})
	hours(t, s, clock, 16)
	first, n := oldest(t, s, t0)
	// Whole blocks go, of two hours, and the newest three are not in one yet.
	if age := clock.sec - first; age < 4*3600 || age > (4+2+3)*3600 {
		t.Errorf("the oldest point is %s old, want 4 to 9 hours", time.Duration(age)*time.Second)
	}
	if want := int(clock.sec-first)/60 + 1; n != want {
		t.Errorf("%d points since the oldest, want %d", n, want)
	}
	for d, err := range s.Distributions(t.Context(), parseSelector(t, "d", "*"), t0, clock.sec-9*3600) {
		t.Errorf("a distribution of before is there: %v, %v", d, err)
	}
}

func TestRetentionBySize(t *testing.T) {
	clock, dir := &fixed{t0}, t.TempDir()
	o := Options{Dir: dir, Now: clock.now, MinFree: -1}
	s := open(t, o)
	hours(t, s, clock, 16)
	before := s.db.Blocks()
	o.RetentionBytes = s.db.Head().Size()
	for _, b := range before[len(before)/2:] {
		o.RetentionBytes += b.Size()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	if err := s.db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	hours(t, s, clock, 4)
	total := s.db.Head().Size()
	for _, b := range s.db.Blocks() {
		total += b.Size()
	}
	first, n := oldest(t, s, t0)
	if total > o.RetentionBytes || first <= t0+3600 {
		t.Errorf("%d bytes of %d allowed, the oldest point is %s old", total, o.RetentionBytes, time.Duration(clock.sec-first)*time.Second)
	}
	if want := int(clock.sec-first)/60 + 1; n != want || clock.sec-first < 3*3600 {
		t.Errorf("%d points since the oldest of %d, want %d: the oldest must go first", n, first-t0, want)
	}
	if blocks, err := filepath.Glob(filepath.Join(dir, tsdbDir, "*", "meta.json")); err != nil || len(blocks) != len(s.db.Blocks()) {
		t.Errorf("%v are on the disk, %v; want %d blocks", blocks, err, len(s.db.Blocks()))
	}
}

// TestLatePointsLandWhereTheyBelong sends points of the whole last hour, in turn
// with those of now, and finds each at its own time; also a moment later than an
// hour, and after another start.
func TestLatePointsLandWhereTheyBelong(t *testing.T) {
	clock := &fixed{t0}
	o := Options{Dir: t.TempDir(), Now: clock.now, MinFree: -1}
	s := open(t, o)
	for age := int64(0); age <= 3600; age += 10 {
		write(t, s, one("m", "h", nil, metric.Point{Time: t0 + age/100, Value: -1}, metric.Point{Time: t0 - age, Value: float64(age)}))
		writeSketches(t, s, dist("d", "h", nil, sk(t0-age, float64(age))))
	}
	write(t, s, one("m", "h", nil, metric.Point{Time: t0 - 3601, Value: 1}))
	if _, refused := s.Counts(); refused[ReasonPast] != 1 || len(refused) != 1 {
		t.Errorf("refused %v, want the one that is too old", refused)
	}
	for range 2 {
		points, sketches := read(t, s, "m", "*")["h|"], readSketches(t, s, "d", "*")["h|"]
		if len(points) != 361+36 || len(sketches) != 361 {
			t.Fatalf("%d points and %d sketches, want 397 and 361", len(points), len(sketches))
		}
		for i := range 360 {
			age := int64(3600 - 10*i)
			if points[i] != (metric.Point{Time: t0 - age, Value: float64(age)}) || sketches[i].Time != t0-age || sketches[i].Sketch.Sum != float64(age) {
				t.Errorf("%d seconds ago there are %v and %v", age, points[i], sketches[i])
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, o)
	}
}
