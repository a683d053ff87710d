package store

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"kelpie.dev/kelpie/metric"
)

// Append writes the points of series and returns nil once they are in the
// write-ahead log: from then on they survive the death of the process. A point
// that cannot be taken is counted by reason and never fails its neighbours. An
// error means that nothing was acknowledged and that the batch may be sent
// again. Names and tags must be normalized, tags canonical; series is not kept.
func (s *Store) Append(ctx context.Context, series []metric.Series) error {
	return s.AppendTelling(ctx, series, nil)
}

// AppendTelling is Append that tells of each point that is not taken: the index
// of its series and the Reason. After an error, what it told is void.
func (s *Store) AppendTelling(ctx context.Context, series []metric.Series, tell func(series int, reason string)) error {
	items := make([]item, len(series))
	for i := range series {
		items[i] = item{Series: &series[i]}
	}
	return s.append(ctx, items, arrivals{series: series, tell: tell})
}

// append is AppendTelling of series or distributions, of which items are made.
func (s *Store) append(ctx context.Context, items []item, from arrivals) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.snapshots.gate.RLock()
	defer s.snapshots.gate.RUnlock()
	defer func() {
		if r := recover(); r != nil {
			err = s.crash(r)
		}
	}()
	if err := s.writable(); err != nil {
		return err
	}
	b := &batch{
		s: s, now: s.opts.Now().Unix(), app: s.db.AppenderV2(ctx), items: items, from: from,
		states: make([]*contextState, len(items)), refused: make(map[string]int),
	}
	unknown := b.lookUp()
	if len(unknown) == 0 {
		return b.write()
	}
	// Batches with new contexts go one after the other. A series becomes known
	// to the others only with its record in the log, so that no acknowledged
	// point refers to a record that a crash could take back.
	s.creating.Lock()
	defer s.creating.Unlock()
	if err := s.writable(); err != nil {
		_ = b.app.Rollback()
		return err
	}
	if err := b.create(unknown); err != nil {
		_ = b.app.Rollback()
		return fmt.Errorf("append %d series: %w: %w", len(items), ErrUnavailable, err)
	}
	if err := b.write(); err != nil {
		return err
	}
	s.refs.publish(b.fresh)
	return nil
}

// writable reports why the store does not take points now. The caller holds mu.
func (s *Store) writable() error {
	switch {
	case s.db == nil:
		return ErrClosed
	case s.full.Load():
		return fmt.Errorf("%w in %s: data is kept by its senders until there is room", ErrNoSpace, s.opts.Dir)
	case s.broken.Load():
		return ErrUnavailable
	}
	return nil
}

// fail notes that the TSDB could not write.
func (s *Store) fail(err error) {
	s.metrics.writeErrors.Inc()
	if !s.broken.Swap(true) {
		s.log.Error("cannot write to the time series database, will reopen it", "dir", s.opts.Dir, "error", err)
	}
}

// crash notes that the TSDB gave up in the middle of a write, as it does when it
// cannot map a chunk to disk. Its locks may be held for ever, so that only a new
// process can go on: Run returns the error that this one ends with.
func (s *Store) crash(cause any) error {
	s.metrics.writeErrors.Inc()
	s.broken.Store(true)
	err := fmt.Errorf("%w: the time series database in %s gave up: %v", ErrUnavailable, s.opts.Dir, cause)
	select {
	case s.crashed <- err:
	default: // one cause is enough
	}
	return err
}

// An item is one context of a batch with what is to be written of it.
type item struct {
	*metric.Series // the context, and its points

	isDistribution bool
	sketches       []metric.SketchPoint // instead of points, of a distribution
}

// batch is one Append on its way.
type batch struct {
	s   *Store
	now int64
	app storage.AppenderV2

	items  []item
	from   arrivals
	states []*contextState // of each item; nil where no point is acceptable
	keys   []contextKey    // of the unknown ones, in their order
	fresh  map[contextKey]*contextState
	capped map[int]string // reasons for whole items, which have no state

	accepted int
	refused  map[string]int
	unstored map[*item]map[int]bool // indices of refused points; nil while there are none
	at       int                    // index of the item that is being written
	oldest   []oldestPoint          // accepted, of each item
}

// oldestPoint is the time of the oldest of some points of a metric.
type oldestPoint struct {
	name *name
	sec  int64
}

// refuse counts a point of the item at b.at that is not taken.
func (b *batch) refuse(reason string) {
	b.refused[reason]++
	if b.from.tell != nil {
		b.from.tell(b.at, reason)
	}
}

// lookUp fills b.states and returns the indices of items with acceptable
// points whose context is not known.
func (b *batch) lookUp() (unknown []int) {
	var buf []byte
	for i := range b.items {
		it := &b.items[i]
		if !b.acceptable(it) {
			continue
		}
		var key contextKey
		key, buf = b.s.refs.key(buf, it)
		if b.states[i] = b.s.refs.get(key); b.states[i] == nil {
			unknown = append(unknown, i)
			b.keys = append(b.keys, key)
		}
	}
	return unknown
}

// acceptable reports whether any point of it may be taken.
func (b *batch) acceptable(it *item) bool {
	for _, p := range it.Points {
		if b.refusal(p) == "" {
			return true
		}
	}
	for i := range it.sketches {
		if b.refusalOf(&it.sketches[i]) == "" {
			return true
		}
	}
	return false
}

// create gives every unknown context a state, and makes the names and keys it
// brings durable. The caller holds s.creating.
func (b *batch) create(unknown []int) error {
	b.fresh, b.capped = make(map[contextKey]*contextState), make(map[int]string)
	refs := make(map[int]storage.SeriesRef, len(unknown))
	add := additions{names: make(map[string]item), several: make(map[string]bool)}
	for j, i := range unknown {
		it := b.items[i]
		if b.states[i] = b.s.refs.get(b.keys[j]); b.states[i] != nil {
			continue // another batch created it meanwhile
		}
		l, several := encodeLabels(it.Series, it.part())
		if g, ok := b.app.(storage.GetRef); ok {
			refs[i], _ = g.GetRef(l, l.Hash())
		}
		if refs[i] == 0 {
			if b.capped[i] = b.overLimit(&b.items[i], add); b.capped[i] != "" {
				continue
			}
		}
		if !b.s.catalog.knows(it) && !add.names[it.Name].isDistribution {
			add.names[it.Name] = it
		}
		for _, key := range several {
			if !b.s.catalog.isSeveral(key) {
				add.several[key] = true
			}
		}
	}
	if err := b.s.catalog.add(add, b.now); err != nil {
		return err
	}
	for j, i := range unknown {
		if b.states[i] != nil || b.capped[i] != "" {
			continue
		}
		st := b.fresh[b.keys[j]]
		if st == nil {
			st = b.s.refs.state(refs[i], b.s.catalog.get(b.items[i].Name))
			b.fresh[b.keys[j]] = st
		}
		b.states[i] = st
	}
	return nil
}

// write appends and commits every item.
func (b *batch) write() error {
	var err error
	for i := range b.items {
		b.at = i
		if reason := b.capped[i]; reason != "" {
			b.refuseItem(&b.items[i], reason)
			for j := range len(b.items[i].Points) + len(b.items[i].sketches) {
				b.leaveOut(&b.items[i], j)
			}
			continue
		}
		if err = b.item(b.states[i], &b.items[i]); err != nil {
			err = errors.Join(fmt.Errorf("metric %q: %w", b.items[i].Name, err), b.app.Rollback())
			break
		}
	}
	if err == nil {
		err = b.app.Commit()
	}
	b.unsettle()
	if err != nil {
		b.s.fail(err)
		return fmt.Errorf("append %d series: %w: %w", len(b.items), ErrUnavailable, err)
	}
	b.s.metrics.observe(b)
	b.publish()
	return nil
}

// unsettle gives metrics another state of which points came that are settled by
// now: the batch may have waited since it began. A write that failed may have left
// some as well.
func (b *batch) unsettle() {
	settled := b.s.opts.Now().Unix() - settleAfter
	for _, o := range b.oldest {
		if o.sec < settled {
			o.name.late.Store(b.s.lateWrites.Add(1))
		}
	}
}

// item appends the points of one context.
func (b *batch) item(st *contextState, it *item) error {
	if st != nil {
		st.mu.Lock()
		defer st.mu.Unlock()
	}
	newest, oldest := int64(math.MinInt64), int64(math.MaxInt64)
	note := func(i int, sec int64, reason string, err error) error {
		switch {
		case err != nil:
			return err
		case reason != "":
			b.refuse(reason)
			b.leaveOut(it, i)
		default:
			b.accepted++
			newest, oldest = max(newest, sec), min(oldest, sec)
		}
		return nil
	}
	for i, p := range it.Points {
		reason, err := b.point(st, it, p)
		if err := note(i, p.Time, reason, err); err != nil {
			return err
		}
	}
	for i := range it.sketches {
		reason, err := b.sketch(st, it, &it.sketches[i])
		if err := note(i, it.sketches[i].Time, reason, err); err != nil {
			return err
		}
	}
	if newest > math.MinInt64 && st.name != nil {
		st.name.touch(it.Series, newest)
		b.oldest = append(b.oldest, oldestPoint{st.name, oldest})
	}
	return nil
}

// point appends p. It returns the reason for which the point is refused, and an
// error only for what concerns more than this point.
func (b *batch) point(st *contextState, it *item, p metric.Point) (reason string, err error) {
	if reason := b.refusal(p); reason != "" {
		return reason, nil
	}
	return b.put(&st.ref, it, "", sample{ms: st.timestamp(p.Time, b.now, it.Interval == metric.FastInterval), value: p.Value})
}

// A sample is what the TSDB has at one millisecond: a value, or a histogram.
type sample struct {
	ms        int64
	value     float64
	histogram *histogram.Histogram
}

// put appends a sample to one of the TSDB's series of it. ref is the series'
// reference, or 0; put keeps it current. It returns what point does.
func (b *batch) put(ref *storage.SeriesRef, it *item, part string, v sample) (reason string, err error) {
	got, err := b.app.Append(*ref, labels.EmptyLabels(), 0, v.ms, v.value, v.histogram, nil, storage.AOptions{})
	if errors.Is(err, tsdb.ErrInvalidSample) {
		// The TSDB does not know the reference: a new context, or one that it
		// dropped since.
		l, _ := encodeLabels(it.Series, part)
		got, err = b.app.Append(0, l, 0, v.ms, v.value, v.histogram, nil, storage.AOptions{})
	}
	if err == nil {
		*ref = got
		return "", nil
	}
	if reason = refusedBy(err); reason != "" {
		return reason, nil
	}
	return "", err
}
