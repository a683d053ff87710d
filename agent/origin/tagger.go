package origin

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Timing of a Tagger.
const (
	refreshMin    = time.Second      // between two requests to the kubelet
	refreshMax    = 30 * time.Second // between requests to a kubelet that fails
	refreshInUse  = 15 * time.Second // how fresh tags are kept while anyone asks
	Patience      = 3 * time.Second  // how long a new entity may be unknown before its samples go untagged
	forgetMissing = 5 * time.Minute  // an unknown entity that nobody has asked for so long is new again
	maxMissing    = 10_000
)

// PodSource lists this node's pods.
type PodSource interface {
	Pods(ctx context.Context) ([]Pod, error)
}

// TaggerOptions configures a Tagger. Source is required.
type TaggerOptions struct {
	Source  PodSource
	Cluster Cluster    // nil: no services and no labels of namespaces
	Tags    TagOptions // what becomes a tag besides what always does
	// CgroupRoot is where the cgroup file system of the node is mounted, to
	// find containers by inode; "" means that none is found.
	CgroupRoot string
	Log        *slog.Logger                                  // nil discards
	Asked      func(pods int, took time.Duration, err error) // called after each request; may be nil
}

// Tagger keeps an Index of this node's pods. It asks the kubelet only when
// somebody asks it: first for an entity it does not know, then now and then.
type Tagger struct {
	o       TaggerOptions
	want    chan struct{} // has room for one: "an entity is missing"
	updated chan struct{} // has room for one: "there is a newer index"
	learned chan struct{} // has room for one: "there are newer facts"
	newPods chan struct{} // has room for one: "the set of pods has changed"

	generation atomic.Uint64
	used       atomic.Bool // since the last refresh

	mu        sync.Mutex // guards all below
	index     *Index
	pods      []Pod
	answers   uint64
	facts     *clusterFacts
	missing   map[Entity]*absence
	inodes    bool // whether an inode is among what is wanted
	failing   bool // the last request failed
	failingAt time.Time
	lastErr   error
}

// absence is since when an entity is unknown, and when it was last asked for.
type absence struct{ since, asked time.Time }

// NewTagger returns a Tagger that knows nothing until Run.
func NewTagger(o TaggerOptions) *Tagger {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Tagger{
		o: o, want: make(chan struct{}, 1), updated: make(chan struct{}, 1),
		learned: make(chan struct{}, 1), newPods: make(chan struct{}, 1),
		index: NewIndex(nil, o.Tags), missing: map[Entity]*absence{},
	}
}

// A Result says how sure a Lookup is.
type Result uint8

// The results.
const (
	Unknown Result = iota // nothing is known, and waiting is pointless
	Pending               // the kubelet is being asked
	Found
)

// Lookup returns e's tags; nil unless something is known. A pod's tags may
// stand in for its container's, with the result Unknown or Pending.
//
// An entity is pending for at most Patience after it was first asked for, and
// none is while the kubelet has been failing for longer than that.
func (t *Tagger) Lookup(e Entity, now time.Time) (*Levels, Result) {
	t.markUsed()
	t.mu.Lock()
	defer t.mu.Unlock()
	levels, exact := t.index.Lookup(e)
	switch {
	case exact && levels != nil:
		return levels, Found
	case exact:
		return nil, Unknown // known to be nobody's
	}
	if t.failing {
		if t.failingAt.IsZero() {
			t.failingAt = now // by the clock of who asks
		}
		if now.Sub(t.failingAt) >= Patience {
			signal(t.want) // as soon as the kubelet may be asked again
			return levels, Unknown
		}
	}
	a := t.missing[e]
	if a == nil || now.Sub(a.asked) > forgetMissing {
		if len(t.missing) >= maxMissing {
			clear(t.missing)
		}
		a = &absence{since: now}
		t.missing[e] = a
	}
	a.asked = now
	if now.Sub(a.since) >= Patience {
		return levels, Unknown
	}
	t.inodes = t.inodes || e.Inode != 0
	signal(t.want)
	return levels, Pending
}

// signal tells c's reader, unless it has not yet heard the last time.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Use keeps the pods fresh, as a Lookup does, and has them asked for at once
// when they never were.
func (t *Tagger) Use() {
	t.markUsed()
	t.mu.Lock()
	first := t.answers == 0
	t.mu.Unlock()
	if first {
		signal(t.want)
	}
}

func (t *Tagger) markUsed() {
	if !t.used.Load() { // reading leaves the cache line where it is
		t.used.Store(true)
	}
}

// Snapshot returns the pods of the kubelet's newest answer, which are shared
// and must not be modified, and that answer's number: 0 when there was none.
func (t *Tagger) Snapshot() (pods []Pod, answer uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pods, t.answers
}

// Updated signals that the pods have been asked for anew.
func (t *Tagger) Updated() <-chan struct{} { return t.updated }

// Generation changes when, and only when, a Lookup may answer differently than
// before: an entity has come or gone, or its tags have changed. Asking for it
// counts as a use of the tags.
func (t *Tagger) Generation() uint64 {
	t.markUsed()
	return t.generation.Load()
}

// Pods returns how many pods are known, and why the last request failed.
func (t *Tagger) Pods() (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pods), t.lastErr
}

// Problems returns what pods' annotations have wrong, in sentences.
func (t *Tagger) Problems() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.index.problems
}

// Run refreshes the index until ctx ends.
func (t *Tagger) Run(ctx context.Context) error {
	var watch sync.WaitGroup
	defer watch.Wait()
	if t.o.Cluster != nil {
		watch.Go(func() { (&clusterWatch{t: t}).run(ctx) })
	}
	ticker := time.NewTicker(refreshInUse)
	defer ticker.Stop()
	pause := refreshMin
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.learned:
			t.rebuild(nil, false)
			continue
		case <-t.want:
		case <-ticker.C:
			if !t.used.Swap(false) {
				continue
			}
		}
		if err := t.refresh(ctx); err != nil {
			pause = min(2*pause, refreshMax)
		} else {
			pause = refreshMin
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// learn takes what the cluster has told.
func (t *Tagger) learn(facts *clusterFacts) {
	t.mu.Lock()
	t.facts = facts
	t.mu.Unlock()
	signal(t.learned)
}

func (t *Tagger) refresh(ctx context.Context) error {
	start := time.Now()
	pods, err := t.o.Source.Pods(ctx)
	if t.o.Asked != nil && ctx.Err() == nil {
		t.o.Asked(len(pods), time.Since(start), err)
	}
	inodes, scanned := t.scan()
	t.mu.Lock()
	failedBefore := t.lastErr != nil
	t.lastErr, t.failing = err, err != nil
	if err == nil {
		t.pods, t.failingAt = pods, time.Time{}
		t.answers++
	}
	t.mu.Unlock()
	if (err == nil || scanned) && t.rebuild(inodes, scanned) {
		signal(t.newPods)
	}
	signal(t.updated)
	switch {
	case err != nil && !failedBefore && ctx.Err() == nil:
		t.o.Log.Warn("cannot learn this node's pods; samples go without the tags of their origin", "error", err)
	case err == nil && failedBefore:
		t.o.Log.Info("this node's pods are known again", "pods", len(pods))
	}
	return err
}

// scan walks the cgroups when somebody asks for an inode.
func (t *Tagger) scan() (map[uint64]Entity, bool) {
	t.mu.Lock()
	wanted := t.inodes
	t.inodes = false
	t.mu.Unlock()
	if !wanted || t.o.CgroupRoot == "" {
		return nil, false
	}
	inodes, err := containersByInode(t.o.CgroupRoot)
	if err != nil {
		t.o.Log.Debug("cannot find all containers by inode", "error", err)
	}
	return inodes, true
}

// rebuild makes an index of what is known, and reports whether it is different.
// Only Run's goroutine calls it.
func (t *Tagger) rebuild(inodes map[uint64]Entity, scanned bool) (changed bool) {
	t.mu.Lock()
	pods, facts, old := t.pods, t.facts, t.index
	t.mu.Unlock()
	x := newIndex(pods, &t.o.Tags, facts)
	if x.inodes = old.inodes; scanned {
		x.inodes = inodes
	}
	changed = x.inherit(old, time.Now())
	t.mu.Lock()
	t.index = x
	t.mu.Unlock()
	if changed {
		t.generation.Add(1)
	}
	return changed
}
