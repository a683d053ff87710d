package origin

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// running runs a Tagger over src until the test's bubble ends, and keeps it in
// use as the agent does.
func running(t *testing.T, o TaggerOptions) *Tagger {
	t.Helper()
	tagger := NewTagger(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tagger.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return tagger
}

// inUse lets d pass while something asks every second.
func inUse(tagger *Tagger, d time.Duration) {
	for range d / time.Second {
		tagger.Use()
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

func pod(name string) Pod {
	return Pod{
		Metadata: Metadata{Name: name, Namespace: "ns", UID: "uid-" + name},
		Status: PodStatus{Phase: "Running", PodIP: "10.1.0.1", ContainerStatuses: []ContainerStatus{
			{Name: "app", ContainerID: "containerd://" + strings.Repeat("c", 60) + name},
		}},
	}
}

// TestGeneration holds that the generation changes with the tags and the set of
// entities and with nothing else, while every answer is a new snapshot.
func TestGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{}
		tagger := running(t, TaggerOptions{Source: src})
		if pods, answer := tagger.Snapshot(); pods != nil || answer != 0 {
			t.Errorf("before any answer: %d pods of answer %d", len(pods), answer)
		}
		last, answers := tagger.Generation(), uint64(0)
		for _, step := range []struct {
			about   string
			pods    []Pod
			wait    time.Duration
			changes bool
		}{
			{"first pod", []Pod{pod("a")}, 20 * time.Second, true},
			{"nothing new", []Pod{pod("a")}, time.Minute, false},
			{"a restart count and a probe's result", func() []Pod {
				p := pod("a")
				p.Status.ContainerStatuses[0].RestartCount, p.Status.ContainerStatuses[0].Ready = 3, true
				return []Pod{p}
			}(), 20 * time.Second, false},
			{"a phase", func() []Pod { p := pod("a"); p.Status.Phase = "Failed"; return []Pod{p} }(), 20 * time.Second, true},
			{"and back", []Pod{pod("a")}, 20 * time.Second, true},
			{"an address", func() []Pod { p := pod("a"); p.Status.PodIP = "10.1.0.9"; return []Pod{p} }(), 20 * time.Second, true},
			{"another pod", []Pod{pod("a"), pod("b")}, 20 * time.Second, true}, // b has a's old address
			{"it has ended", []Pod{pod("a")}, 20 * time.Second, true},          // its address has
			{"its tags are kept", []Pod{pod("a")}, keepEnded - 2*time.Minute, false},
			{"and forgotten", []Pod{pod("a")}, 2 * time.Minute, true},
			{"once", []Pod{pod("a")}, time.Minute, false},
		} {
			src.pods.Store(&step.pods)
			inUse(tagger, step.wait)
			g := tagger.Generation()
			if changed := g != last; changed != step.changes {
				t.Errorf("%s: generation %d after %d, want a change: %t", step.about, g, last, step.changes)
			}
			pods, answer := tagger.Snapshot()
			if len(pods) != len(step.pods) || answer <= answers {
				t.Errorf("%s: %d pods of answer %d after %d, want %d pods of a later one", step.about, len(pods), answer, answers, len(step.pods))
			}
			last, answers = g, answer
		}
	})
}

// TestEnded holds that a pod that is no longer listed keeps its tags, but not
// its address, for five minutes.
func TestEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{}
		both, one := []Pod{pod("a"), pod("b")}, []Pod{pod("a")}
		both[1].Status.PodIP = "10.1.0.2"
		src.pods.Store(&both)
		tagger := running(t, TaggerOptions{Source: src})
		inUse(tagger, 20*time.Second)
		src.pods.Store(&one)
		inUse(tagger, 20*time.Second)
		entities := map[string]Entity{
			"pod":       {PodUID: "uid-b"},
			"container": {ContainerID: strings.Repeat("c", 60) + "b"},
			"name":      {PodUID: "uid-b", ContainerName: "app"},
		}
		for kind, e := range entities {
			if l, _ := tagger.Lookup(e, time.Now()); l == nil || l.Origin() != "ns/b" || !l.At(Orchestrator).Has("pod_name:b") {
				t.Errorf("%s: its tags are gone as soon as it is", kind)
			}
		}
		if l, _ := tagger.Lookup(Entity{Addr: netip.MustParseAddr("10.1.0.2")}, time.Now()); l != nil {
			t.Error("its address still stands for it, though another pod may have it by now")
		}
		inUse(tagger, keepEnded+20*time.Second)
		for kind, e := range entities {
			if l, _ := tagger.Lookup(e, time.Now()); l != nil {
				t.Errorf("%s: it still has tags after %s", kind, keepEnded+20*time.Second)
			}
		}
	})
}

// TestUse holds that using the pods has them asked for, without any sample.
func TestUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{}
		tagger := running(t, TaggerOptions{Source: src})
		time.Sleep(time.Minute)
		if n := src.asked.Load(); n != 0 {
			t.Errorf("the kubelet was asked %d times for nobody", n)
		}
		tagger.Use()
		synctest.Wait()
		if n := src.asked.Load(); n != 1 {
			t.Errorf("the kubelet was asked %d times at the first use, want once", n)
		}
		inUse(tagger, time.Minute)
		if n := src.asked.Load(); n < 4 || n > 6 {
			t.Errorf("the kubelet was asked %d times in a minute of use, want one in %s", n, refreshInUse)
		}
	})
}

// TestKubeletDown holds that a kubelet that fails delays samples once, and not
// those of each new entity, and that they are tagged when it is back.
func TestKubeletDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{}
		bad := errors.New("connection refused")
		src.err.Store(&bad)
		tagger := running(t, TaggerOptions{Source: src})
		ask := func(uid string) Result {
			_, result := tagger.Lookup(Entity{PodUID: uid}, time.Now())
			return result
		}
		if got := ask("first"); got != Pending {
			t.Errorf("before the kubelet has failed: result %d, want pending", got)
		}
		waited := 0
		for ; ask("first") == Pending && waited < 10; waited++ {
			time.Sleep(time.Second)
		}
		if d := time.Duration(waited) * time.Second; d > 2*Patience {
			t.Errorf("the first entity was pending for %s", d)
		}
		ask("second")
		time.Sleep(Patience)
		for i := range 600 {
			if got := ask("new-" + time.Now().String()); got != Unknown {
				t.Fatalf("%d s later: a new entity has result %d, want unknown", i, got)
			}
			time.Sleep(time.Second)
		}
		src.err.Store(nil)
		src.pods.Store(&[]Pod{pod("late")})
		before := tagger.Generation()
		for range 2 * refreshMax / time.Second {
			ask("uid-late")
			time.Sleep(time.Second)
		}
		if got := ask("uid-late"); got != Found || tagger.Generation() == before {
			t.Errorf("once the kubelet is back: result %d, generation %d after %d", got, tagger.Generation(), before)
		}
	})
}
