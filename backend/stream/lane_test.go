package stream

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	vs "kelpie.dev/kelpie/valuestream"
)

func TestFastLaneChangesItsSize(t *testing.T) {
	w := newWorld(t, t.TempDir())
	defer func() {
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	}()
	w.stream.want(t.Context(), w.sub, &vs.WatchRequest{Want: []*vs.Want{{Id: 1, Query: "avg:hits{*}"}, {Id: 2, Query: "avg:queue{*}"}}})
	etags := map[string]bool{}
	for _, tt := range []struct {
		size int
		want []string
	}{{500, []string{"hits", "queue"}}, {1, []string{"hits"}}, {-1, nil}, {0, []string{"hits", "queue"}}} {
		w.stream.SetMaxMetrics(tt.size)
		etag, got := w.stream.FastMetrics()
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("of size %d (-want +got)\n%s", tt.size, d)
		}
		etags[etag] = true
	}
	if len(etags) != 3 {
		t.Errorf("%d names of three lists", len(etags))
	}
	w.stream.SetMaxMetrics(-1)
	w.stream.want(t.Context(), w.sub, &vs.WatchRequest{Want: []*vs.Want{{Id: 3, Query: "avg:took{*}"}}})
	if _, got := w.stream.FastMetrics(); len(got) != 0 {
		t.Errorf("switched off, it has %v", got)
	}
}
