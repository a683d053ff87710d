package forward

import "slices"

// What the queue knows of files: which of its entries have one.

// save returns the oldest entry that is in memory only, which stored or
// notStored must follow, or nil.
func (q *queue) save() *entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.oldest(func(e *entry) bool { return e.body != nil })
	if e != nil {
		e.writing = true
	}
	return e
}

// notStored leaves e in memory.
func (q *queue) notStored(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e.writing = false
}

// stored notes that e has its file, and returns the entries whose files are to
// be removed: of them dropped have made room, and unwanted was delivered while
// it was written.
func (q *queue) stored(e *entry) (dropped []*entry, unwanted bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e.writing = false; e.gone {
		return nil, true
	}
	q.count(e, -1)
	e.body = nil
	q.count(e, 1)
	return q.boundDisk(e), false
}

// boundDisk takes the oldest entries on disk until the rest fits; newest stays.
// q.mu is held.
func (q *queue) boundDisk(newest *entry) (dropped []*entry) {
	for q.disk > q.diskLimit {
		old := q.oldest(func(o *entry) bool { return o.body == nil && !o.taken && o != newest })
		if old == nil {
			break
		}
		q.take(old)
		dropped = append(dropped, old)
	}
	return dropped
}

// restore puts what a spool held, in its order, before all else. It returns the
// entries that do not fit, whose files are to be removed.
func (q *queue) restore(entries []*entry) (dropped []*entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var byKind [kinds][]*entry
	for _, e := range entries {
		byKind[e.file.kind] = append(byKind[e.file.kind], e)
		q.count(e, 1)
		q.last = max(q.last, e.file.at)
	}
	for k, list := range byKind {
		q.lists[k] = append(list, q.lists[k]...)
		signal(q.wake[k])
	}
	return q.boundDisk(nil)
}

// room returns the times that two halves of a taken entry may have, which keep
// the order, or false when there is no more room between it and the next.
func (q *queue) room(e *entry) (first, second int64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	end := e.file.at + tick
	for _, o := range q.lists[e.file.kind] {
		if o != e && o.file.at > e.file.at {
			end = min(end, o.file.at)
			break
		}
	}
	first, second = e.file.at, (e.file.at+end)/2
	return first, second, second > first
}

// replace puts others, which are in memory or on disk as e is, into e's place.
func (q *queue) replace(e *entry, others []*entry) (stored bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.lists[e.file.kind]
	i := slices.Index(list, e)
	if i < 0 {
		return e.body == nil
	}
	q.take(e)
	q.lists[e.file.kind] = slices.Insert(slices.Clone(q.lists[e.file.kind]), i, others...)
	for _, o := range others {
		q.count(o, 1)
	}
	signal(q.unsaved)
	return e.body == nil
}
