package figure

import (
	"strings"
	"testing"
)

func TestFigureLines(t *testing.T) {
	peers := []Value{{"slow", 1e6}, {"absent", 0}, {"fast", 2e6}}
	for _, test := range []struct {
		name   string
		figure Figure
		want   string
	}{
		{"higher is better", Against("dogstatsd_parse_aggregate", "samples/s/core", HigherIsBetter, 1.234567e7, peers),
			`{"figure":"dogstatsd_parse_aggregate","unit":"samples/s/core","kelpie":12350000,"peer":"fast","peer_value":2000000,"ratio":6.173}`},
		{"lower is better", Against("agent_rss_idle", "MiB", LowerIsBetter, 20, []Value{{"a", 50}, {"b", 40}, {"absent", 0}}),
			`{"figure":"agent_rss_idle","unit":"MiB","kelpie":20,"peer":"b","peer_value":40,"ratio":2}`},
		{"no peer", Against("x", "y", HigherIsBetter, 5, nil),
			`{"figure":"x","unit":"y","kelpie":5,"peer":"","peer_value":0,"ratio":0}`},
		{"Kelpie failed", Against("x", "y", HigherIsBetter, 0, peers),
			`{"figure":"x","unit":"y","kelpie":0,"peer":"fast","peer_value":2000000,"ratio":0}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b strings.Builder
			if err := WriteJSON(&b, []Figure{test.figure}); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(b.String(), "\n"); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestTable(t *testing.T) {
	table := Table{Title: "T", Header: []string{"program", "rate"}, Notes: []string{"a note"}}
	table.Add("kelpie", Count(1.25e7))
	table.Add("other", Count(950), "more")
	var b strings.Builder
	if err := table.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"", "T",
		"  program    rate        ",
		"  kelpie   12.5 M        ",
		"  other       950  more  ",
		"  a note", "",
	}, "\n")
	trim := func(s string) string {
		var out []string
		for _, line := range strings.Split(s, "\n") {
			out = append(out, strings.Trim(line, " "))
		}
		return strings.Join(out, "\n")
	}
	if trim(b.String()) != trim(want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 12.34: "12.3", 999: "999", 1000: "1 k", 1.5e6: "1.5 M", 2e9: "2 G"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%v) = %q, want %q", n, got, want)
		}
	}
}
