package source

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOneSlowQueryHarmsNobody(t *testing.T) {
	for name, slow := range map[string]func(release chan struct{}, w http.ResponseWriter){
		"timeout": func(release chan struct{}, _ http.ResponseWriter) { <-release },
		"503":     func(_ chan struct{}, w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"504":     func(_ chan struct{}, w http.ResponseWriter) { w.WriteHeader(http.StatusGatewayTimeout) },
	} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			p, f := start(t, func(queries []string, w http.ResponseWriter) {
				if slices.Contains(queries, "avg:m17{*}") {
					slow(release, w)
					return
				}
				answer(queries, w)
			})
			t.Cleanup(func() { close(release) })
			for i := range 35 {
				p.Use(fmt.Sprint(i), key(i))
			}
			for cycle := range 2 {
				p.poll(t.Context(), all)
				for i := range 35 {
					v, err := p.Read(key(i)).Current(time.Now(), Limits{MaxAge: time.Minute})
					switch {
					case i == 17:
						if err == nil || err.Reason != SourceUnavailable || !strings.Contains(err.Error(), "but not this one") && cycle == 0 {
							t.Errorf("cycle %d: the slow query: %v, want it named as the one without answer", cycle, err)
						}
					case err != nil || v != float64(i):
						t.Errorf("cycle %d: m%d = %v, %v; want its own value in the same cycle", cycle, i, v, err)
					}
				}
			}
			want := append(slices.Repeat([]int{1}, 35+1), 34, 35)
			if d := cmp.Diff(want, f.sizes()); d != "" {
				t.Errorf("requests: want the slow query alone in the second cycle (-want +got)\n%s", d)
			}
		})
	}
}

func TestDeadSourceIsNotAskedForEachQuery(t *testing.T) {
	release := make(chan struct{})
	for name, dead := range map[string]func([]string, http.ResponseWriter){
		"hangs": func([]string, http.ResponseWriter) { <-release },
		"503":   refuse(http.StatusServiceUnavailable, "upstream"),
	} {
		t.Run(name, func(t *testing.T) {
			p, f := start(t, dead)
			if name == "hangs" {
				t.Cleanup(func() { close(release) })
			}
			for i := range 70 {
				p.Use(fmt.Sprint(i), key(i))
			}
			for cycle := range 2 {
				began := time.Now()
				p.poll(t.Context(), all)
				if took := time.Since(began); took > 3*p.opts.Timeout {
					t.Errorf("cycle %d took %s, want about two timeouts of %s", cycle, took, p.opts.Timeout)
				}
				for i := range 70 {
					if r := p.Read(key(i)); r.Err == nil || r.Err.Reason != SourceUnavailable || strings.Contains(r.Err.Error(), "not this one") {
						t.Errorf("cycle %d: m%d = %v, want the source blamed and not the query", cycle, i, r.Err)
					}
				}
				sizes := f.sizes()
				alone := len(sizes) - 2*(cycle+1)
				if d := cmp.Diff(slices.Repeat([]int{35}, 2*(cycle+1)), sizes[alone:]); d != "" {
					t.Errorf("cycle %d: batches (-want +got)\n%s", cycle, d)
				}
				if most := (cycle + 1) * (2*p.opts.Parallel - 1); alone > most {
					t.Errorf("cycle %d: %d queries asked alone so far, want at most %d", cycle, alone, most)
				}
			}
		})
	}
}
