package origin

import (
	"slices"
	"strings"

	"kelpie.dev/kelpie/metric"
)

// A Cardinality says how many tags of an origin a sample gets; each level
// contains the ones before it.
type Cardinality uint8

// The levels.
const (
	None         Cardinality = iota // no origin tags at all
	Low                             // what a workload's pods share
	Orchestrator                    // what tells pods apart
	High                            // what tells containers apart
)

// ParseCardinality reads Datadog's word for a level.
func ParseCardinality(word string) (Cardinality, bool) {
	switch word {
	case "none":
		return None, true
	case "low":
		return Low, true
	case "orchestrator", "orch":
		return Orchestrator, true
	case "high":
		return High, true
	default:
		return None, false
	}
}

// Levels are an entity's tags at each cardinality, canonical.
type Levels struct {
	tags   [High + 1]metric.Tags
	origin string // namespace/pod
}

// At returns the tags at c.
func (l *Levels) At(c Cardinality) metric.Tags { return l.tags[min(c, High)] }

// Origin returns "namespace/pod" of the pod that the entity is or belongs to.
func (l *Levels) Origin() string { return l.origin }

func (l *Levels) equal(other *Levels) bool {
	if l == nil || other == nil {
		return l == other
	}
	for i := range l.tags {
		if !slices.Equal(l.tags[i], other.tags[i]) {
			return false
		}
	}
	return l.origin == other.origin
}

// tagList collects tags with the level at which each appears first.
type tagList struct {
	byLevel [High + 1][]string
	split   map[string]string // separator of the values of some tags
}

// add adds key:value; nothing when either is empty.
func (t *tagList) add(level Cardinality, key, value string) {
	if key == "" || value == "" {
		return
	}
	if separator := t.split[key]; separator != "" {
		for part := range strings.SplitSeq(value, separator) {
			if part != "" {
				t.byLevel[level] = append(t.byLevel[level], key+":"+part)
			}
		}
		return
	}
	t.byLevel[level] = append(t.byLevel[level], key+":"+value)
}

// addUser adds a tag of a name that a user wrote: a '+' before it means high.
func (t *tagList) addUser(name, value string) {
	level := Low
	if bare, ok := strings.CutPrefix(name, "+"); ok {
		name, level = bare, High
	}
	t.add(level, name, value)
}

func (t *tagList) clone() *tagList {
	c := &tagList{split: t.split}
	for i, tags := range t.byLevel {
		c.byLevel[i] = slices.Clone(tags)
	}
	return c
}

func (t *tagList) levels(origin string) *Levels {
	l := &Levels{origin: origin}
	for level := Low; level <= High; level++ {
		l.tags[level] = l.tags[level-1].Union(t.byLevel[level]...)
	}
	return l
}
