package record

import "kelpie.dev/kelpie/metric"

// state is what joined tags depend on.
type state struct {
	hosts *tagged
	raw   bool
}

// State returns a comparable value that is another one once JoinTags answers
// otherwise than before, and nil while it joins nothing.
func (j *Joined) State() any {
	s := state{hosts: j.book.hosts.view(), raw: j.book.raw.any()}
	if len(s.hosts.tags) == 0 && !s.raw {
		return nil
	}
	return s
}

// JoinTags returns the tags that Select gives to a series of the host with the
// given own tags.
func (j *Joined) JoinTags(host string, own metric.Tags) metric.Tags {
	p := plan{hosts: j.book.hosts.view()}
	if j.book.raw.any() {
		p.raw = &j.book.raw
	}
	return p.tags(host, own)
}
