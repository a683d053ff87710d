package store

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/storage"
)

// contexts remembers, for each context that was written lately, its reference
// in the TSDB and the newest timestamp given to it, so that a known context
// costs one hash and one map look-up instead of building its labels. A context
// stands here only once its series' record is in the write-ahead log.
type contexts struct {
	seed   maphash.Seed
	opened atomic.Int64 // Unix time when the TSDB was opened
	made   atomic.Uint64
	shards [64]contextShard
}

type contextShard struct {
	mu sync.RWMutex
	m  map[contextKey]*contextState
}

// contextKey is 128 bits of two independent hashes, so that two contexts never
// meet in practice and none needs to be stored.
type contextKey struct{ a, b uint64 }

type contextState struct {
	name   *name
	number uint64 // of this state: no other has had it, nor will

	mu       sync.Mutex // guards what follows
	ref      storage.SeriesRef
	extremes [2]storage.SeriesRef // of a distribution's minima and maxima
	lastMS   int64                // newest timestamp handed out
	// late are the newest timestamps that writes of other seconds than the newest
	// got, one a second, the latest write last; maxLate at most.
	late []int64
	// unsure is the last second that may hold points this process does not know
	// of: the TSDB had the series when it was opened.
	unsure int64
}

func newContexts() *contexts {
	c := &contexts{seed: maphash.MakeSeed()}
	c.reset(0)
	return c
}

// reset forgets everything, for a TSDB opened at the given Unix time.
func (c *contexts) reset(opened int64) {
	c.opened.Store(opened)
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.m = make(map[contextKey]*contextState)
		sh.mu.Unlock()
	}
}

// key hashes it's context; buf is scratch space and is returned for reuse. A
// distribution is another context than the series of its name and tags.
func (c *contexts) key(buf []byte, it *item) (contextKey, []byte) {
	s := it.Series
	buf = append(append(buf[:0], s.Name...), 0)
	buf = append(append(buf, s.Host...), 0)
	buf = append(append(buf, s.Device...), 0)
	for _, t := range s.Tags {
		buf = append(append(buf, t...), 0)
	}
	buf = append(buf, it.part()...)
	return contextKey{a: xxhash.Sum64(buf), b: maphash.Bytes(c.seed, buf)}, buf
}

func (c *contexts) shard(k contextKey) *contextShard {
	return &c.shards[k.a%uint64(len(c.shards))]
}

// get returns the state of a context, or nil when it is not known.
func (c *contexts) get(k contextKey) *contextState {
	sh := c.shard(k)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.m[k]
}

// publish makes contexts known whose records are durable.
func (c *contexts) publish(fresh map[contextKey]*contextState) {
	for k, st := range fresh {
		if st.ref == 0 {
			continue // every point was refused: there is no series
		}
		sh := c.shard(k)
		sh.mu.Lock()
		sh.m[k] = st
		sh.mu.Unlock()
	}
}

// forget drops contexts without a point since the Unix time before.
func (c *contexts) forget(before int64) {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		for k, st := range sh.m {
			st.mu.Lock()
			if st.lastMS < before*1000 {
				delete(sh.m, k)
			}
			st.mu.Unlock()
		}
		sh.mu.Unlock()
	}
}

// state returns the state of a context that is not known. ref is its reference
// if the TSDB holds it all the same, from before it was opened.
func (c *contexts) state(ref storage.SeriesRef, n *name) *contextState {
	st := &contextState{ref: ref, name: n, number: c.made.Add(1), unsure: math.MinInt64}
	if ref != 0 {
		st.unsure = c.opened.Load()
	}
	return st
}

// timestamp returns the millisecond at which a point of second sec is written
// and notes it. A second that may hold a point already gets a later one: the
// next after the newest, else one that rises with the time of arrival, and past
// the one that the last such write got, so that the last write wins whatever the
// order. It is odd for a point that stands for metric.FastInterval, and even for
// all others. The caller holds st.mu.
func (st *contextState) timestamp(sec, now int64, fast bool) int64 {
	ms := sec * 1000
	switch newest := st.lastMS / 1000; {
	case sec == newest:
		ms = next(st.lastMS)
	case sec < newest, sec <= st.unsure:
		ms = st.lateTimestamp(sec, ms+rewriteOffset(sec, now))
	}
	if fast {
		ms++
	}
	st.lastMS = max(st.lastMS, ms)
	return ms
}

// maxLate bounds the seconds whose late writes a context remembers. One that is
// written again after as many others, within ten seconds, keeps its first value.
const maxLate = 16

// lateTimestamp returns ms, or a later millisecond if one of sec has been given
// since that is not earlier, and notes it.
func (st *contextState) lateTimestamp(sec, ms int64) int64 {
	for i, given := range st.late {
		if given/1000 == sec {
			if ms <= given {
				ms = next(given)
			}
			st.late = append(st.late[:i], st.late[i+1:]...)
			break
		}
	}
	if len(st.late) == maxLate {
		st.late = st.late[:copy(st.late, st.late[1:])]
	}
	st.late = append(st.late, ms)
	return ms
}

// next is the next even millisecond of the second of ms, or the last one when
// every later is taken.
func next(ms int64) int64 {
	ms -= ms % 2
	if ms%1000 < 998 {
		ms += 2
	}
	return ms
}

// rewriteOffset maps a point's age at arrival, from maxFuture ahead to maxPast
// behind, to the even milliseconds 100..998 of its second, rising with age.
func rewriteOffset(sec, now int64) int64 {
	const ahead, span = int64(maxFuture / 1e9), int64((maxPast + maxFuture) / 1e9)
	age := min(max(now-sec+ahead, 0), span)
	return 100 + age*449/span*2
}
