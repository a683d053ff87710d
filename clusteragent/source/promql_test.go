package source

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// promAt returns a poller of a server that answers as reply says.
func promAt(t *testing.T, o PromQLOptions, reply http.HandlerFunc) *Poller {
	t.Helper()
	srv := httptest.NewServer(reply)
	t.Cleanup(srv.Close)
	o.URL = srv.URL + "/prometheus/"
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	o.HTTP = &http.Client{Transport: tr}
	q, err := NewPromQL(o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Name: Prometheus, PromQL: q, SourceURL: srv.URL, Timeout: 300 * time.Millisecond, Period: 30 * time.Second, KeysHint: "the token"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func vectorOf(values ...string) string {
	var series []string
	for i, v := range values {
		series = append(series, fmt.Sprintf(`{"metric":{"i":"%d"},"value":[%d,%q]}`, i, time.Now().Unix(), v))
	}
	return `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(series, ",") + `]}}`
}

func TestPromQLAnswers(t *testing.T) {
	now := time.Now().Unix()
	for name, c := range map[string]struct {
		code   int
		body   string
		value  float64
		reason Reason
		says   string
	}{
		"one series":    {200, vectorOf("12.5"), 12.5, "", ""},
		"a scalar":      {200, fmt.Sprintf(`{"status":"success","data":{"resultType":"scalar","result":[%d.5,"3"]}}`, now-1), 3, "", ""},
		"none":          {200, vectorOf(), 0, NoData, "check the metric name"},
		"two":           {200, vectorOf("1", "2"), 0, MultipleSeries, "returns 2 series"},
		"far too many":  {200, strings.Repeat(" ", maxVector+1), 0, MultipleSeries, "larger than 4 MiB"},
		"NaN":           {200, vectorOf("NaN"), 0, NotANumber, "the query's value is NaN"},
		"infinity":      {200, vectorOf("+Inf"), 0, NotANumber, "the query's value is +Inf"},
		"minus":         {200, vectorOf("-Inf"), 0, NotANumber, "the query's value is -Inf"},
		"a range":       {200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`, 0, QueryRejected, "returns a matrix"},
		"a histogram":   {200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}`, 0, QueryRejected, "histogram_quantile"},
		"syntax":        {400, `{"status":"error","errorType":"bad_data","error":"1:5: parse error: unexpected end"}`, 0, QueryRejected, "1:5: parse error"},
		"too costly":    {422, `{"status":"error","errorType":"execution","error":"query processing would load too many samples"}`, 0, QueryRejected, "too many samples"},
		"error in 200":  {200, `{"status":"error","errorType":"execution","error":"no"}`, 0, QueryRejected, "no (execution)"},
		"no token":      {401, "no", 0, Unauthorized, "check the token"},
		"tenant":        {403, "no org id", 0, Unauthorized, "no org id"},
		"too often":     {429, "slow down", 0, RateLimited, "slow down"},
		"broken":        {500, "<html>", 0, SourceUnavailable, "HTTP 500"},
		"elsewhere":     {302, "", 0, SourceUnavailable, "redirects are not followed"},
		"no JSON":       {200, "<html>", 0, SourceUnavailable, "decode answer"},
		"half a sample": {200, `{"status":"success","data":{"resultType":"vector","result":[{"value":[1]}]}}`, 0, SourceUnavailable, "decode answer"},
		"no value":      {200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}`, 0, SourceUnavailable, "without value"},
	} {
		p := promAt(t, PromQLOptions{}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/prometheus/api/v1/query" || r.FormValue("query") != "sum(up)" {
				t.Errorf("%s: asked %s for %q", name, r.URL.Path, r.FormValue("query"))
			}
			w.WriteHeader(c.code)
			_, _ = w.Write([]byte(c.body))
		})
		k := Key{Query: "sum(up)"}
		p.Use("a", k)
		p.poll(t.Context(), all)
		v, why := p.Read(k).Current(time.Now(), Limits{MaxAge: time.Minute})
		switch {
		case c.reason == "" && (why != nil || v != c.value):
			t.Errorf("%s: %v, %v; want %v", name, v, why, c.value)
		case c.reason != "" && (why == nil || why.Reason != c.reason || !strings.Contains(why.Error(), c.says)):
			t.Errorf("%s: %v, %v; want %s with %q", name, v, why, c.reason, c.says)
		}
	}
}

// TestPromQLAge: the server serves a plain selector's value for minutes after
// the last scrape, at the time of the evaluation; its own time counts.
func TestPromQLAge(t *testing.T) {
	for query, old := range map[string]bool{
		`up`: true, ` up{job="web"} `: true, `{"http.rate", job=~"a|b{2}"}`: true, `up{a="\"}"}`: true,
		`sum(up)`: false, `rate(x[5m])`: false, `up + 1`: false, `up offset 1m`: false, `up{a="b"} or vector(0)`: false, `up{a="b"} # }`: false,
	} {
		p := promAt(t, PromQLOptions{}, func(w http.ResponseWriter, r *http.Request) {
			body := vectorOf("7")
			if inner, ok := strings.CutPrefix(r.FormValue("query"), "timestamp("); ok {
				if inner != query+")" || r.FormValue("time") == "" {
					t.Errorf("%s: asked for %q at %q, want the same instant", query, inner, r.FormValue("time"))
				}
				body = vectorOf(fmt.Sprint(time.Now().Add(-4 * time.Minute).Unix()))
			}
			_, _ = w.Write([]byte(body))
		})
		k := Key{Query: query}
		p.Use("a", k)
		p.poll(t.Context(), all)
		v, why := p.Read(k).Current(time.Now(), Limits{MaxAge: 2 * time.Minute})
		if old && (why == nil || why.Reason != Stale || why.Age < 4*time.Minute) || !old && (why != nil || v != 7) {
			t.Errorf("%s: %v, %v; want stale: %v", query, v, why, old)
		}
	}
}

// A server whose clock is ahead must not make a value that never ages.
func TestPromQLFromTheFuture(t *testing.T) {
	p := promAt(t, PromQLOptions{}, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"scalar","result":[%d,"3"]}}`, time.Now().Add(time.Hour).Unix())
	})
	k := Key{Query: "1+2"}
	p.Use("a", k)
	p.poll(t.Context(), all)
	if _, why := p.Read(k).Current(time.Now().Add(5*time.Minute), Limits{MaxAge: 2 * time.Minute}); why == nil || why.Reason != Stale {
		t.Errorf("five minutes later: %v, want stale", why)
	}
}

func TestPromQLIsNotDatadogs(t *testing.T) {
	for query, want := range map[string]string{
		"": "empty", "avg:m{*}": "Datadog's language", "p95:m{*}": "Datadog's language",
		`avg(m{a="b"})`: "", `m, n`: "", `sum:rate5m`: "Datadog's language", `job:requests:rate5m`: "",
	} {
		if err := checkPromQL(query); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("checkPromQL(%q) = %v, want %q", query, err, want)
		}
	}
}

func TestPromQLCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    PromQLOptions
		want string
	}{
		"none":          {PromQLOptions{}, ""},
		"bearer":        {PromQLOptions{Bearer: "b"}, "Bearer b"},
		"file":          {PromQLOptions{BearerFile: file}, "Bearer first"},
		"basic":         {PromQLOptions{User: "u", Password: "p"}, "Basic dTpw"},
		"password file": {PromQLOptions{User: "u", PasswordFile: file}, "Basic dTpmaXJzdA=="},
	} {
		c.o.Tenant = "team-a"
		p := promAt(t, c.o, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Authorization"); got != c.want || r.Header.Get("X-Scope-OrgID") != "team-a" {
				t.Errorf("%s: authorization %q, tenant %q; want %q, team-a", name, got, r.Header.Get("X-Scope-OrgID"), c.want)
			}
			_, _ = w.Write([]byte(vectorOf("1")))
		})
		p.Use("a", Key{Query: "sum(up)"})
		p.poll(t.Context(), all)
		if r := p.Read(Key{Query: "sum(up)"}); r.Err != nil {
			t.Errorf("%s: %v", name, r.Err)
		}
	}
	for name, o := range map[string]PromQLOptions{
		"two ways":          {URL: "http://p", Bearer: "secret", User: "u"},
		"password twice":    {URL: "http://p", User: "u", Password: "secret", PasswordFile: "f"},
		"password alone":    {URL: "http://p", Password: "secret"},
		"user in the URL":   {URL: "http://u:secret@p"},
		"no scheme":         {URL: "p:9090"},
		"a query in it":     {URL: "http://p?token=secret"},
		"a strange scheme":  {URL: "ftp://p"},
		"nothing but a dot": {URL: "."},
	} {
		if _, err := NewPromQL(o); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want an error without the secret", name, err)
		}
	}
}

func TestSlowPromQLHarmsNobody(t *testing.T) {
	release := make(chan struct{})
	var asked atomic.Int32
	p := promAt(t, PromQLOptions{}, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("query") == "sum(slow)" {
			asked.Add(1)
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return
		}
		_, _ = w.Write([]byte(vectorOf("1")))
	})
	t.Cleanup(func() { close(release) })
	slow := Key{Query: "sum(slow)"}
	p.Use("slow", slow)
	for i := range 20 {
		p.Use(fmt.Sprint(i), Key{Query: fmt.Sprintf("sum(m%d)", i)})
	}
	for range 2 {
		p.poll(t.Context(), all)
		for i := range 20 {
			if r := p.Read(Key{Query: fmt.Sprintf("sum(m%d)", i)}); r.Err != nil || r.Value != 1 {
				t.Errorf("m%d: %+v, want its value in the same cycle", i, r)
			}
		}
	}
	r := p.Read(slow)
	if r.Err == nil || r.Err.Reason != SourceUnavailable || !strings.Contains(r.Err.Error(), "but not this one") || r.Err.RetryAt.IsZero() {
		t.Errorf("the slow query: %v, want it named, and when it is tried again", r.Err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the slow query was asked %d times in two cycles, want backoff after the first", n)
	}
}
