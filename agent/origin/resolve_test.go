package origin

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kelpie.dev/kelpie/metric"
)

const podAddr = "10.244.0.7" // of the recorded app pod

// knowing returns a Tagger that knows the recorded pods, and the folder of a
// process 42 that runs in the app's container.
func knowing(t testing.TB) (tagger *Tagger, proc string) {
	t.Helper()
	proc = t.TempDir()
	writeCgroup(t, proc, "42", "0::/kubepods/pod"+appPod+"/"+appID+"\n")
	writeCgroup(t, proc, "7", "0::/system.slice/sshd.service\n")
	tagger = NewTagger(TaggerOptions{Source: &source{}})
	tagger.pods, tagger.answers = recorded(t), 1
	tagger.index = NewIndex(tagger.pods, TagOptions{})
	tagger.index.inodes = map[uint64]Entity{1234: {ContainerID: sidecarID, PodUID: appPod}}
	return tagger, proc
}

func writeCgroup(t testing.TB, proc, pid, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(proc, pid), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(proc, pid, "cgroup"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLadderRows holds both orders as the reference's A1b gives them, and what
// is Kelpie's own. In tags, '!' stands before one that may not be there.
func TestLadderRows(t *testing.T) {
	tagger, proc := knowing(t)
	const app, side, set = "kube_container_name:test-metric-app", "kube_container_name:sidecar", "kube_stateful_set:db"
	const name, appOrigin = "pod_name:test-metric-app-7b9f6c8d5x-x2k4m", "test/test-metric-app-7b9f6c8d5x-x2k4m"
	b := func(s string) []byte { return []byte(s) }
	addr := netip.MustParseAddr
	external := b("it-false,cn-sidecar,pu-" + appPod)
	older := ResolverOptions{Cardinality: Low}
	with := func(change func(*ResolverOptions)) ResolverOptions { o := older; change(&o); return o }
	unified := with(func(o *ResolverOptions) { o.Unified = true })
	first := with(func(o *ResolverOptions) { o.EntityIDFirst = true })
	gauges := with(func(o *ResolverOptions) { o.GaugeCardinality = Orchestrator })
	addrs := with(func(o *ResolverOptions) { o.Addresses = true })
	both := with(func(o *ResolverOptions) { o.Addresses, o.Unified = true, true })
	for _, tt := range []struct {
		about   string
		o       ResolverOptions
		claim   Claim
		tags    string
		origin  string
		outcome Outcome
	}{
		// The older order, which adds.
		{"socket", older, Claim{PID: 42}, "base:x global:y " + app, appOrigin, Resolved},
		{"socket and c:", older, Claim{PID: 42, ContainerID: b(sidecarID)}, app + " " + side, appOrigin, Resolved},
		{"socket and entity id, not c:", older, Claim{PID: 42, PodUID: b("setpod"), ContainerID: b(sidecarID)}, app + " " + set + " !" + side, appOrigin, Resolved},
		{"entity id none leaves c:", older, Claim{PodUID: b("none"), ContainerID: b(sidecarID)}, side, appOrigin, Resolved},
		{"entity id none leaves the socket", older, Claim{PID: 42, PodUID: b("none")}, app, appOrigin, Resolved},
		{"entity id first", first, Claim{PID: 42, PodUID: b("setpod")}, set + " !" + app, "ops/db-0", Resolved},
		{"entity id first, but none given", first, Claim{PID: 42}, app, appOrigin, Resolved},
		{"entity id first and none", first, Claim{PID: 42, PodUID: b("none")}, "base:x !" + app, "", NoOrigin},
		{"an inode", older, Claim{ContainerID: b("in-1234")}, side, appOrigin, Resolved},
		{"an inode with an id", older, Claim{ContainerID: b("in-1234,ci-" + appID)}, app + " !" + side, appOrigin, Resolved},
		{"no e: here", older, Claim{External: external}, "base:x !" + side, "", NoOrigin},
		{"the pod of the host's process", older, Claim{PID: 7}, "base:x global:y", "", NoOrigin},
		// The unified order, which stops.
		{"unified: socket", unified, Claim{PID: 42, ContainerID: b(sidecarID), PodUID: b("setpod")}, app + " !" + side + " !" + set, appOrigin, Resolved},
		{"unified: c: before e:", unified, Claim{ContainerID: b(appID), External: external}, app + " !" + side, appOrigin, Resolved},
		{"unified: inode before e:", unified, Claim{ContainerID: b("in-1234"), External: b("cn-test-metric-app,pu-" + appPod)}, side + " !" + app, appOrigin, Resolved},
		{"unified: e: before entity id", unified, Claim{External: external, PodUID: b("setpod")}, side + " !" + set, appOrigin, Resolved},
		{"unified: entity id before e:'s pod", unified, Claim{External: b("pu-" + appPod), PodUID: b("setpod")}, set + " !kube_namespace:test", "ops/db-0", Resolved},
		{"unified: e:'s pod", unified, Claim{External: b("it-true,pu-" + appPod)}, "kube_namespace:test !" + side, appOrigin, Resolved},
		{"unified: entity id none", unified, Claim{External: b("pu-" + appPod), PodUID: b("none")}, "kube_namespace:test", appOrigin, Resolved},
		{"unified: entity id first is not for it", with(func(o *ResolverOptions) { o.Unified, o.EntityIDFirst = true, true }), Claim{PID: 42, PodUID: b("setpod")}, app + " !" + set, appOrigin, Resolved},
		// Opting out.
		{"none", older, Claim{PID: 42, Cardinality: b("none")}, "base:x !global:y !" + app, appOrigin, NoOrigin},
		{"none without an origin", older, Claim{Cardinality: b("none")}, "base:x !global:y", "", NoOrigin},
		{"none refused", with(func(o *ResolverOptions) { o.NoOptOut = true }), Claim{PID: 42, Cardinality: b("none")}, "global:y " + app, appOrigin, Resolved},
		{"unified: none cannot be refused", with(func(o *ResolverOptions) { o.NoOptOut, o.Unified = true, true }), Claim{PID: 42, Cardinality: b("none")}, "!global:y !" + app, appOrigin, NoOrigin},
		{"none by default is no opting out", with(func(o *ResolverOptions) { o.Cardinality = None }), Claim{PID: 42}, "global:y !" + app, appOrigin, NoOrigin},
		// Gauges.
		{"gauge", gauges, Claim{PID: 42, Gauge: true}, name, appOrigin, Resolved},
		{"no gauge", gauges, Claim{PID: 42}, "!" + name, appOrigin, Resolved},
		{"gauge that asks", gauges, Claim{PID: 42, Gauge: true, Cardinality: b("low")}, "!" + name, appOrigin, Resolved},
		{"gauge that asks for nonsense", gauges, Claim{PID: 42, Gauge: true, Cardinality: b("lots")}, name, appOrigin, Resolved},
		{"gauge and a higher default", with(func(o *ResolverOptions) { o.Cardinality, o.GaugeCardinality = High, Orchestrator }), Claim{PID: 42, Gauge: true}, "container_id:" + appID, appOrigin, Resolved},
		// The address of a UDP sender.
		{"address", addrs, Claim{Addr: addr(podAddr)}, "kube_namespace:test !" + app, appOrigin, Resolved},
		{"address in IPv6", addrs, Claim{Addr: addr("::ffff:" + podAddr)}, "kube_namespace:test", appOrigin, Resolved},
		{"address, unified", both, Claim{Addr: addr(podAddr)}, "kube_namespace:test", appOrigin, Resolved},
		{"address, turned off", older, Claim{Addr: addr(podAddr)}, "!kube_namespace:test", "", NoOrigin},
		{"address of the node", addrs, Claim{Addr: addr("10.0.0.1")}, "!kube_namespace:test", "", NoOrigin},
		{"loopback", addrs, Claim{Addr: addr("127.0.0.1")}, "!kube_namespace:test", "", NoOrigin},
		{"loopback in IPv6", addrs, Claim{Addr: addr("::1")}, "!kube_namespace:test", "", NoOrigin},
		{"c: before the address", addrs, Claim{Addr: addr(podAddr), ContainerID: b(sidecarID)}, side, appOrigin, Resolved},
		{"entity id before the address", addrs, Claim{Addr: addr(podAddr), PodUID: b("setpod")}, set + " !kube_namespace:test", "ops/db-0", Resolved},
		{"entity id none stops the address, too", addrs, Claim{Addr: addr(podAddr), PodUID: b("none")}, "!kube_namespace:test", "", NoOrigin},
		{"none and an address", addrs, Claim{Addr: addr(podAddr), Cardinality: b("none")}, "!kube_namespace:test", appOrigin, NoOrigin},
	} {
		tt.o.Tagger, tt.o.ProcRoot = tagger, proc
		tt.o.Base, tt.o.Global = metric.NewTags("base:x"), metric.NewTags("global:y")
		r := NewResolver(tt.o)
		for i := range 2 { // the second answer comes from memory
			got, outcome := r.Resolve(&tt.claim, time.Unix(1, 0))
			if outcome != tt.outcome || got.Origin != tt.origin {
				t.Errorf("%s, answer %d: outcome %d of %q, want %d of %q", tt.about, i, outcome, got.Origin, tt.outcome, tt.origin)
			}
			for tag := range strings.FieldsSeq(tt.tags) {
				absent, unwanted := strings.CutPrefix(tag, "!")
				if got.Set.Tags().Has(absent) == unwanted {
					t.Errorf("%s, answer %d: want %s, got %s", tt.about, i, tag, got.Set.Tags())
				}
			}
		}
		if len(r.cache) != 1 {
			t.Errorf("%s: %d claims are remembered, want 1", tt.about, len(r.cache))
		}
	}
}

// TestNoTagger holds that opting out works without a kubelet, too.
func TestNoTagger(t *testing.T) {
	r := NewResolver(ResolverOptions{Base: metric.NewTags("base:x"), Global: metric.NewTags("global:y"), Addresses: true})
	for cardinality, want := range map[string]string{"": "base:x,global:y", "high": "base:x,global:y", "none": "base:x"} {
		got, outcome := r.Resolve(&Claim{PID: 1, Addr: netip.MustParseAddr(podAddr), Cardinality: []byte(cardinality)}, time.Unix(1, 0))
		if got.Set.Tags().String() != want || outcome != NoOrigin {
			t.Errorf("card:%s: %s, outcome %d; want %s", cardinality, got.Set.Tags(), outcome, want)
		}
	}
	if r.Updated() != nil || r.Generation() != 0 {
		t.Error("a resolver without a tagger claims to learn")
	}
}

// TestFirstSample holds for each kind of claim that the first sample of a pod
// that has just started waits until its pod is known, is tagged then, and waits
// no longer than Patience when it never is.
func TestFirstSample(t *testing.T) {
	pods := recorded(t)
	proc, cgroups := t.TempDir(), t.TempDir()
	writeCgroup(t, proc, "42", "0::/kubepods/pod"+appPod+"/"+appID+"\n")
	inode := makeCgroup(t, cgroups, "kubepods", "pod"+appPod, appID)
	for kind, c := range map[string]Claim{
		"socket":             {PID: 42},
		"container id":       {ContainerID: []byte("ci-" + appID)},
		"inode":              {ContainerID: []byte("in-" + inode)},
		"external container": {External: []byte("it-false,cn-test-metric-app,pu-" + appPod)},
		"external pod":       {External: []byte("pu-" + appPod)},
		"entity id":          {PodUID: []byte(appPod)},
		"address":            {Addr: netip.MustParseAddr(podAddr)},
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &source{}
				tagger := NewTagger(TaggerOptions{Source: src, CgroupRoot: cgroups})
				r := NewResolver(ResolverOptions{Tagger: tagger, Cardinality: Low, Unified: true, Addresses: true, ProcRoot: proc})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- tagger.Run(ctx) }()
				start := time.Now()
				if _, outcome := r.Resolve(&c, time.Now()); outcome != Waiting {
					t.Errorf("at first: outcome %d, want waiting", outcome)
				}
				<-r.Updated()
				if _, outcome := r.Resolve(&c, time.Now()); outcome != Waiting {
					t.Errorf("before the kubelet lists it: outcome %d, want waiting", outcome)
				}
				src.pods.Store(&pods)
				<-r.Updated()
				got, outcome := r.Resolve(&c, time.Now())
				if outcome != Resolved || !got.Set.Tags().Has("kube_namespace:test") {
					t.Errorf("once it is listed: outcome %d, tags %s", outcome, got.Set.Tags())
				}
				if d := time.Since(start); d > refreshMin {
					t.Errorf("it took %s, want %s", d, refreshMin)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestNeverKnown holds that what is never known delays samples for Patience,
// once, however long they go on.
func TestNeverKnown(t *testing.T) {
	for kind, c := range map[string]Claim{
		"container": {ContainerID: []byte("stranger")}, "inode": {ContainerID: []byte("in-99")}, "pod": {PodUID: []byte("stranger")},
		"external": {External: []byte("cn-x,pu-stranger")}, "address": {Addr: netip.MustParseAddr("192.0.2.1")},
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &source{}
				tagger := running(t, TaggerOptions{Source: src, CgroupRoot: "testdata"})
				r := NewResolver(ResolverOptions{Tagger: tagger, Cardinality: Low, Unified: true, Addresses: true})
				waited := 0
				for range 3600 {
					if _, outcome := r.Resolve(&c, time.Now()); outcome == Waiting {
						waited++
					}
					time.Sleep(time.Second)
				}
				if want := int(Patience / time.Second); waited != want {
					t.Errorf("it was waited for %d times in an hour, want %d", waited, want)
				}
			})
		})
	}
}

// TestNewContainer holds that a pod's tags stand in for those of a container
// that the kubelet does not tell of, once waiting for it has been in vain.
func TestNewContainer(t *testing.T) {
	pods := recorded(t)
	synctest.Test(t, func(t *testing.T) {
		src := &source{}
		src.pods.Store(&pods)
		proc := t.TempDir()
		writeCgroup(t, proc, "9", "0::/kubepods/pod"+appPod+"/"+strings.Repeat("d", 64)+"\n")
		tagger := running(t, TaggerOptions{Source: src})
		r := NewResolver(ResolverOptions{Tagger: tagger, Cardinality: Low, Unified: true, ProcRoot: proc})
		for kind, c := range map[string]Claim{"socket": {PID: 9}, "external": {External: []byte("cn-new,pu-" + appPod)}} {
			if _, outcome := r.Resolve(&c, time.Now()); outcome != Waiting {
				t.Errorf("%s: outcome %d, want waiting", kind, outcome)
			}
			time.Sleep(Patience)
			got, outcome := r.Resolve(&c, time.Now())
			if outcome != Resolved || !got.Set.Tags().Has("kube_namespace:test") || len(got.Set.Tags().Values("kube_container_name")) != 0 {
				t.Errorf("%s: outcome %d, tags %s; want the pod's", kind, outcome, got.Set.Tags())
			}
		}
	})
}

// TestRemembered holds how long an answer stands: a process id is another's
// after a while.
func TestRemembered(t *testing.T) {
	tagger, proc := knowing(t)
	r := NewResolver(ResolverOptions{Tagger: tagger, Cardinality: Low, ProcRoot: proc})
	now := time.Unix(1000, 0)
	got, _ := r.Resolve(&Claim{PID: 42}, now)
	if !got.Until.Equal(now.Add(rememberProcess)) {
		t.Errorf("it stands until %s after, want %s", got.Until.Sub(now), rememberProcess)
	}
	writeCgroup(t, proc, "42", "0::/kubepods/pod"+appPod+"/"+sidecarID+"\n")
	for _, tt := range []struct {
		after time.Duration
		want  string
	}{{rememberProcess - 1, "test-metric-app"}, {rememberProcess, "sidecar"}} {
		got, _ := r.Resolve(&Claim{PID: 42}, now.Add(tt.after))
		if !got.Set.Tags().Has("kube_container_name:" + tt.want) {
			t.Errorf("after %s: tags %s, want those of container %s", tt.after, got.Set.Tags(), tt.want)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	tagger, proc := knowing(b)
	r := NewResolver(ResolverOptions{Tagger: tagger, Cardinality: Low, GaugeCardinality: Orchestrator, Unified: true, Addresses: true, ProcRoot: proc})
	for name, c := range map[string]Claim{
		"socket":  {PID: 42, Gauge: true},
		"address": {Addr: netip.MustParseAddr(podAddr)},
		"all":     {PID: 42, ContainerID: []byte("in-1234,ci-" + appID), External: []byte("it-false,cn-sidecar,pu-" + appPod), PodUID: []byte(appPod), Cardinality: []byte("low")},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			now := time.Unix(1, 0)
			for b.Loop() {
				if _, outcome := r.Resolve(&c, now); outcome != Resolved {
					b.Fatal(outcome)
				}
			}
		})
	}
}

// TestResolveAllocations holds that a claim that is remembered costs none.
func TestResolveAllocations(t *testing.T) {
	tagger, proc := knowing(t)
	r := NewResolver(ResolverOptions{Tagger: tagger, Cardinality: Low, Unified: true, Addresses: true, ProcRoot: proc})
	c := Claim{PID: 42, ContainerID: []byte("ci-" + appID), External: []byte("cn-sidecar,pu-" + appPod), PodUID: []byte(appPod), Addr: netip.MustParseAddr(podAddr)}
	now := time.Unix(1, 0)
	if n := testing.AllocsPerRun(100, func() { r.Resolve(&c, now) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
