package store

import (
	"slices"

	"kelpie.dev/kelpie/metric"
)

// arrivals are what a batch was given: one of the two, and who is told of what
// of it is refused, by index.
type arrivals struct {
	series        []metric.Series
	distributions []metric.Distribution
	tell          func(item int, reason string) // may be nil
}

// leaveOut notes that the i-th point of it is refused.
func (b *batch) leaveOut(it *item, i int) {
	if b.s.opts.Accepted == nil {
		return
	}
	if b.unstored == nil {
		b.unstored = make(map[*item]map[int]bool)
	}
	if b.unstored[it] == nil {
		b.unstored[it] = make(map[int]bool)
	}
	b.unstored[it][i] = true
}

// publish gives what is stored now to whoever wants to know. Nearly always that
// is all that came.
func (b *batch) publish() {
	if b.s.opts.Accepted == nil {
		return
	}
	from := b.from
	if b.unstored != nil {
		from = arrivals{series: slices.Clone(from.series), distributions: slices.Clone(from.distributions)}
		for i := range b.items {
			left := b.unstored[&b.items[i]]
			switch {
			case left == nil:
			case b.items[i].isDistribution:
				d := &from.distributions[i]
				d.Points = without(d.Points, left)
			default:
				s := &from.series[i]
				s.Points = without(s.Points, left)
			}
		}
	}
	numbers := make([]uint64, len(from.series))
	for i := range numbers {
		if st := b.states[i]; st != nil {
			numbers[i] = st.number
		}
	}
	b.s.opts.Accepted(from.series, numbers, from.distributions)
}

// without returns a copy of points without those of the indices in left.
func without[P any](points []P, left map[int]bool) []P {
	kept := make([]P, 0, len(points))
	for i, p := range points {
		if !left[i] {
			kept = append(kept, p)
		}
	}
	return kept
}
