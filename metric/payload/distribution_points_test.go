package payload

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/metric"
)

func TestDistributionPoints(t *testing.T) {
	got, err := DecodeDistributionPoints([]byte(`{"series":[{"metric":"m","type":"distribution","host":"h","device":"d","tags":["c",null,"a:b"],
		"points":[[1618221135.000000,[1, 2.5,"3"]],["1618221136",[]],[1618221134.6,[2]]],"unknown":{}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []metric.Distribution{{Name: "m", Host: "h", Tags: metric.Tags{"a:b", "c", "device:d"}, Points: []metric.SketchPoint{
		{Time: 1618221135, Sketch: buildSketch(1, 2.5, 3, 2)}, {Time: 1618221136}}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestDistributionPointsErrors(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{``, "empty body"},
		{`{"series":[{"points":[]}]}`, "series[0]: metric is missing"},
		{`{"series":[{"metric":"m","type":"gauge"}]}`, `series[0] "m": type "gauge": expected distribution`},
		{`{"series":[{"metric":"m","points":[[1]]}]}`, `series[0]: expected [timestamp, [value, …]]`},
		{`{"series":[{"metric":"m","points":[7]}]}`, `expected [timestamp, [value, …]]`},
		{`{"series":[{"metric":"m","points":[[1,2]]}]}`, `"2" is not a list of values`},
		{`{"series":[{"metric":"m","points":[[1,[2,null]]]}]}`, `value "null" is not a number`},
		{`{"series":[{"metric":"m","points":[[1,[[2]]]]}]}`, `value "[2]" is not a number`},
		{`{"series":[{"metric":"m","points":[[-1,[2]]]}]}`, `timestamp -1 is out of range`},
		{`{"series":[{"metric":"m","points":[["x",[2]]]}]}`, `timestamp "x" is not a number`},
	} {
		if _, err := DecodeDistributionPoints([]byte(c.body)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want %q in it", c.body, err, c.want)
		}
	}
}
