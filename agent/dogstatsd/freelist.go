package dogstatsd

import "sync"

// A freeList lends a bounded number of batches, which are made when they are
// first needed. Whoever finds none waits: what a listener does not read stays
// in the kernel, which bounds and counts it. The batch lent is the one that
// came back last, so that a quiet listener touches the memory of few.
type freeList struct {
	make func() *Batch

	mu     sync.Mutex // guards what follows
	idle   []*Batch
	unmade int // batches that may still be made
	back   sync.Cond
}

func newFreeList(n int, make func() *Batch) *freeList {
	f := &freeList{make: make, unmade: n}
	f.back.L = &f.mu
	return f
}

// get returns an empty batch.
func (f *freeList) get() *Batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.idle) == 0 {
		if f.unmade > 0 {
			f.unmade--
			b := f.make()
			b.list = f
			return b
		}
		f.back.Wait()
	}
	b := f.idle[len(f.idle)-1]
	f.idle = f.idle[:len(f.idle)-1]
	return b
}

func (f *freeList) put(b *Batch) {
	b.Packets, b.bytes = b.Packets[:0], 0
	f.mu.Lock()
	f.idle = append(f.idle, b)
	f.mu.Unlock()
	f.back.Signal()
}
