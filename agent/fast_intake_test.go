package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// laneIntake offers a fast lane, or none, and keeps points by series, interval
// and second.
type laneIntake struct {
	*httptest.Server
	mu     sync.Mutex
	silent bool // it says nothing about a fast lane, as Datadog
	down   bool
	list   []string
	errs   []string
	points map[string]map[int64]map[int64]float64 // by series, interval, time
	order  map[string]int64                       // newest point of each series
}

func newLaneIntake(t *testing.T) *laneIntake {
	in := &laneIntake{points: map[string]map[int64]map[int64]float64{}, order: map[string]int64{}, silent: true}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.down {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			body, err = decoder.DecodeAll(body, nil)
		}
		if err == nil && r.URL.Path == "/api/v2/series" {
			var series []metric.Series
			if series, err = payload.DecodeV2(body); err == nil {
				in.take(series)
			}
		}
		if err != nil {
			in.errs = append(in.errs, err.Error())
		}
		in.answer(w, r.Header)
	}))
	t.Cleanup(func() { in.Close(); decoder.Close() })
	return in
}

// answer speaks of the fast lane as Kelpie's intake does. in.mu is held.
func (in *laneIntake) answer(w http.ResponseWriter, asked http.Header) {
	known, asks := asked[payload.FastLaneHeader]
	answer := map[string]any{"errors": []string{}}
	if etag := fmt.Sprintf("list-of-%d-%s", len(in.list), strings.Join(in.list, "-")); asks && !in.silent {
		w.Header().Set(payload.FastLaneHeader, etag)
		if known[0] != etag {
			answer["fast_lane"] = in.list
		}
	}
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(answer)
}

// take keeps points. in.mu is held.
func (in *laneIntake) take(series []metric.Series) {
	for _, s := range series {
		key := s.Name + "{" + s.Tags.String() + "}"
		if in.points[key] == nil {
			in.points[key] = map[int64]map[int64]float64{}
		}
		if in.points[key][s.Interval] == nil {
			in.points[key][s.Interval] = map[int64]float64{}
		}
		for _, p := range s.Points {
			if _, twice := in.points[key][s.Interval][p.Time]; twice {
				in.errs = append(in.errs, fmt.Sprintf("%s: twice the point of %d, interval %d", key, p.Time, s.Interval))
			}
			if p.Time < in.order[key] {
				in.errs = append(in.errs, fmt.Sprintf("%s: the point of %d came after that of %d", key, p.Time, in.order[key]))
			}
			in.order[key] = max(in.order[key], p.Time)
			in.points[key][s.Interval][p.Time] = p.Value
		}
	}
}

// beat reports whether the agent's own series of second at is there.
func (in *laneIntake) beat(at int64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for key, by := range in.points {
		if _, ok := by[10][at]; ok && strings.HasPrefix(key, "datadog.agent.running{") {
			return true
		}
	}
	return false
}

func (in *laneIntake) set(change func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	change()
}

func (in *laneIntake) offer(metrics ...string) {
	in.set(func() { in.silent, in.list = false, metrics })
}

// buckets returns, of a rate, how many there were in each ten seconds, and in
// which of these they came by seconds.
func (in *laneIntake) buckets(t *testing.T, key string) (events map[int64]float64, fast []int64) {
	t.Helper()
	in.mu.Lock()
	defer in.mu.Unlock()
	events = map[int64]float64{}
	for at, v := range in.points[key][10] {
		events[at] += 10 * v
	}
	seconds := map[int64]bool{}
	for at, v := range in.points[key][1] {
		start := at - at%10
		if _, both := in.points[key][10][start]; both {
			t.Errorf("%s: second %d, and the ten that it is in", key, at)
		}
		seconds[start] = true
		events[start] += v
	}
	return events, slices.Sorted(maps.Keys(seconds))
}

// laneRun is an agent between an intake that may have a fast lane and one that
// never has.
type laneRun struct {
	*running
	kelpie, datadog *laneIntake
	conn            net.Conn
	sent            float64
}

const laneStart = 1_700_000_000

// seconds sends samples for n seconds, until when kelpie, if it is up, has all
// that is sent.
func (r *laneRun) seconds(t *testing.T, n int) {
	t.Helper()
	for range n {
		at := r.clock().Unix()
		count := 1 + at%7
		if _, err := fmt.Fprintf(r.conn, "hits:%d|c|#a:1\nhits:2|c|@0.5|#a:2\nother:%d|c\nh:1:2:3|h\nload:%d|g", count, 2+at%3, at%100); err != nil {
			t.Fatal(err)
		}
		r.sent += 3
		r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "c", r.sent)
		r.waitValue(t, "kelpie_agent_dogstatsd_samples_total", "g", r.sent/3)
		r.advance(time.Second)
		r.settle(t)
	}
}

// settle waits until nothing waits for an intake that is up. What a flush has
// made may not wait there yet; of that of a bucket the beat is the last.
func (r *laneRun) settle(t *testing.T) {
	t.Helper()
	r.kelpie.mu.Lock()
	down := r.kelpie.down
	r.kelpie.mu.Unlock()
	for _, in := range []*laneIntake{r.kelpie, r.datadog} {
		if at := r.clock().Unix(); at%10 == 0 && (!down || in != r.kelpie) {
			eventually(t, "the beat", func() bool { return in.beat(at) })
		}
	}
	eventually(t, "all is delivered", func() bool {
		for _, f := range r.status(t).Forwarding {
			if f.QueuePayloads > 0 && (!down || f.URL != r.kelpie.URL) {
				return false
			}
		}
		return true
	})
}

func startLane(t *testing.T, settings map[string]string) *laneRun {
	t.Helper()
	r := &laneRun{kelpie: newLaneIntake(t), datadog: newLaneIntake(t)}
	all := map[string]string{
		"DD_DD_URL": r.kelpie.URL, "DD_FORWARDER_STORAGE_PATH": t.TempDir(),
		"DD_ADDITIONAL_ENDPOINTS": fmt.Sprintf(`{%q: [%q]}`, r.datadog.URL, testKey),
	}
	maps.Copy(all, settings)
	r.running = start(t, all)
	var err error
	if r.conn, err = net.Dial("udp", r.config.DogStatsD.UDPAddr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	r.seconds(t, 7) // to the end of a bucket
	return r
}
