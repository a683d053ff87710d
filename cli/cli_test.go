package cli

import (
	"context"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"kelpie.dev/kelpie/cli/apitest"
	"kelpie.dev/kelpie/metric"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"kelpie": func() {
			os.Exit(Main(context.Background(), os.Args[1:], Options{
				Version: "v1.2.3", APIKey: os.Getenv("DD_API_KEY"), AppKey: os.Getenv("DD_APP_KEY"), Out: os.Stdout, Err: os.Stderr,
			}))
		},
	})
}

// TestScripts runs the command against a real HTTP server whose points, one each
// 10 s, start at 2026-08-20T10:00:00Z, except those of kelpie.live, which are of now.
func TestScripts(t *testing.T) {
	api := apitest.New("api-key-for-tests", "app-key-for-tests")
	start := time.Date(2026, 8, 20, 10, 0, 0, 0, time.UTC).Unix()
	points := func(start int64, n int) []metric.Point {
		out := make([]metric.Point, n)
		for i := range out {
			out[i] = metric.Point{Time: start + int64(i)*10, Value: float64(i) + 0.5}
		}
		return out
	}
	series := func(name, tag string, p []metric.Point) metric.Series {
		return metric.Series{Name: name, Tags: metric.NewTags("env:test", tag), Type: metric.Gauge, Interval: 10, Points: p}
	}
	now := time.Now().Unix()/10*10 - 50
	api.Store(
		series("shop.orders", "region:eu", points(start, 5)),
		series("shop.orders", "region:us", points(start, 4)),
		series("kelpie.live", "region:eu", points(now, 6)),
	)
	srv := httptest.NewServer(api)
	t.Cleanup(srv.Close) // the scripts run in parallel, after this function
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("URL", srv.URL)
			e.Setenv("DD_API_KEY", "api-key-for-tests")
			e.Setenv("DD_APP_KEY", "app-key-for-tests")
			e.Setenv("KUBECONFIG", e.WorkDir+"/no-such-kubeconfig")
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
	})
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct{ text, want string }{
		{"now", "2026-08-20T12:00:00Z"},
		{"15m", "2026-08-20T11:45:00Z"},
		{"now-90s", "2026-08-20T11:58:30Z"},
		{"-2h", "2026-08-20T10:00:00Z"},
		{"1d", "2026-08-19T12:00:00Z"},
		{"1618221135", "2021-04-12T09:52:15Z"},
		{"2026-08-20T10:00:00+02:00", "2026-08-20T08:00:00Z"},
	} {
		got, err := moment(c.text, now)
		if err != nil || stamp(got) != c.want {
			t.Errorf("moment(%q) = %s, %v, want %s", c.text, stamp(got), err, c.want)
		}
	}
	for _, bad := range []string{"", "yesterday", "15", "--5m", "-1d-"} {
		if got, err := moment(bad, now); err == nil {
			t.Errorf("moment(%q) = %s, want an error", bad, stamp(got))
		}
	}
}
