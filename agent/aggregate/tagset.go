package aggregate

import (
	"slices"

	"github.com/cespare/xxhash/v2"

	"kelpie.dev/kelpie/metric"
)

// A TagSet is a canonical tag set with its hashes worked out, so that tags the
// agent adds cost nothing for each sample. It is immutable.
type TagSet struct {
	tags   metric.Tags
	hashes []uint64
	sum    uint64 // of hashes: addition makes the set's order irrelevant
	mask   uint64 // bit h&63 is set for every hash h: a quick "surely not in"
}

// NewTagSet returns the set of tags, normalized as an intake does it. It keeps
// tags, which must be canonical.
func NewTagSet(tags metric.Tags) *TagSet {
	tags = normalTags(tags)
	s := &TagSet{tags: tags, hashes: make([]uint64, len(tags))}
	for i, tag := range tags {
		h := xxhash.Sum64String(tag)
		s.hashes[i] = h
		s.sum += h
		s.mask |= 1 << (h & 63)
	}
	return s
}

var emptyTagSet = NewTagSet(nil)

// Tags returns the set's tags. They must not be modified.
func (s *TagSet) Tags() metric.Tags { return s.tags }

// sumWith returns the sum of the hashes of s together with tags, every
// different tag counted once. scratch is reused and returned.
func (s *TagSet) sumWith(tags [][]byte, scratch []uint64) (sum uint64, _ []uint64) {
	sum, seen := s.sum, s.mask
	scratch = scratch[:0]
	for _, tag := range tags {
		if len(tag) == 0 {
			continue
		}
		h := xxhash.Sum64(tag)
		bit := uint64(1) << (h & 63)
		if seen&bit != 0 && (slices.Contains(s.hashes, h) || slices.Contains(scratch, h)) {
			continue
		}
		seen |= bit
		scratch = append(scratch, h)
		sum += h
	}
	return sum, scratch
}

// normalTags returns tags themselves where they are normal already.
func normalTags(tags metric.Tags) metric.Tags {
	for i, tag := range tags {
		if metric.NormalizeTag(tag) == tag {
			continue
		}
		normal := slices.Clone(tags)
		for j := i; j < len(normal); j++ {
			normal[j] = metric.NormalizeTag(normal[j])
		}
		return metric.NewTags(normal...)
	}
	return tags
}
