package agent

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/origin"
)

// twoPods is a kubelet that lists the pods shop/web-1 and shop/web-2.
type twoPods struct{}

func (twoPods) Pods(context.Context) (pods []origin.Pod, _ error) {
	for _, name := range []string{"web-1", "web-2"} {
		pods = append(pods, origin.Pod{Metadata: origin.Metadata{Name: name, Namespace: "shop", UID: name}})
	}
	return pods, nil
}

// TestSharedGauges holds that gauges of several senders are one series only
// where a setting makes them so, and that this is then told; and that a pod
// that has taken another's place is no reason to complain.
func TestSharedGauges(t *testing.T) {
	pod := func(n int) string { return fmt.Sprintf("load:%d|g|#dd.internal.entity_id:web-%d", n, n) }
	addr := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 2, last}) }
	for about, tt := range map[string]struct {
		level   origin.Cardinality // of gauges
		send    func(send func(line string, from netip.Addr), second int)
		series  int    // named load*
		problem string // in what is said; "" for none
	}{
		"of two pods, as it is": {origin.Orchestrator, func(send func(string, netip.Addr), _ int) {
			send(pod(1), netip.Addr{})
			send(pod(2), netip.Addr{})
		}, 2, ""},
		"of two pods at low": {origin.Low, func(send func(string, netip.Addr), _ int) {
			send(pod(1), netip.Addr{})
			send(pod(2), netip.Addr{})
		}, 1, "shop/web-1 and shop/web-2"},
		"the second pod comes later": {origin.Low, func(send func(string, netip.Addr), second int) {
			send(pod(1), netip.Addr{})
			if second > 30 {
				send(pod(2), netip.Addr{})
			}
		}, 1, "shop/web-1 and shop/web-2"},
		"a pod in another's place": {origin.Low, func(send func(string, netip.Addr), second int) {
			send(pod(1+second/100), netip.Addr{})
		}, 1, ""},
		"counters of two pods": {origin.Low, func(send func(string, netip.Addr), _ int) {
			send(strings.Replace(pod(1), "|g", "|c", 1), netip.Addr{})
			send(strings.Replace(pod(2), "|g", "|c", 1), netip.Addr{})
		}, 1, ""},
		"of two addresses": {origin.Orchestrator, func(send func(string, netip.Addr), _ int) {
			send("load:1|g", addr(3))
			send("load:2|g", addr(4))
		}, 1, "10.1.2."},
		"of two containers, origin detection off": {origin.Orchestrator, func(send func(string, netip.Addr), _ int) {
			send("load:1|g|c:ci-aaa", netip.Addr{})
			send("load:2|g|c:ci-bbb", netip.Addr{})
		}, 1, "container ci-aaa and container ci-bbb"},
		"of two pods, origin detection off": {origin.Orchestrator, func(send func(string, netip.Addr), _ int) {
			send("load:1|g|e:it-false,cn-app,pu-1", netip.Addr{})
			send("load:2|g|e:it-false,cn-app,pu-2", netip.Addr{})
		}, 1, "container it-false,cn-app,pu-1"},
		"of one container, origin detection off": {origin.Orchestrator, func(send func(string, netip.Addr), second int) {
			send("load:1|g|c:ci-aaa", addr(byte(second%2)))
		}, 1, ""},
		"of processes of this machine": {origin.Orchestrator, func(send func(string, netip.Addr), _ int) {
			send("load:1|g", netip.MustParseAddr("127.0.0.1"))
			send("load:2|g", netip.Addr{})
		}, 1, ""},
	} {
		t.Run(about, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipeline(t)
				tagger := origin.NewTagger(origin.TaggerOptions{Source: twoPods{}})
				p.resolver = origin.NewResolver(origin.ResolverOptions{Tagger: tagger, Cardinality: origin.Low, GaugeCardinality: tt.level})
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				defer wg.Wait()
				defer cancel()
				wg.Go(func() { _ = tagger.Run(ctx) })
				tagger.Use()
				<-tagger.Updated()
				series := map[string]bool{}
				for second := range 200 {
					now := time.Now()
					tt.send(func(line string, from netip.Addr) {
						b := batchOf(line)
						b.Packets = []dogstatsd.Packet{{Data: []byte(line), Addr: from}}
						p.batch(b, now)
					}, second)
					for _, s := range p.aggregator.Flush(now).Series {
						series[s.Name+"{"+s.Tags.String()+"}"] = true
					}
					time.Sleep(time.Second)
				}
				if len(series) != tt.series {
					t.Errorf("series %v, want %d", series, tt.series)
				}
				said := ""
				for _, problem := range p.problems.list() {
					said += problem.Reason + ": " + problem.Meaning
				}
				if tt.problem == "" && said != "" || !strings.Contains(said, tt.problem) {
					t.Errorf("said %q, want %q", said, tt.problem)
				}
			})
		})
	}
}
