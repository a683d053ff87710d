package record

import (
	"context"
	"iter"
	"strings"
	"time"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/query"
)

// Joined is a source whose series bear their hosts' tags beside their own: a
// scope matches the union, and groups are made of it. The tags are those that
// the host has now, whatever it had when a point came.
//
// Series whose tags came in another form than Datadog's, as Prometheus' labels
// do, bear them normalized, so that a scope can name them.
type Joined struct {
	source Source
	tagger Tagger
	book   *Book
}

// A Source is what tags are joined to.
type Source interface {
	query.DistributionSource
	query.SettledSource
}

// A Tagger knows the tags of a metric's contexts, hosts among them.
type Tagger interface {
	Tags(ctx context.Context, name string, since time.Time) (metric.Tags, error)
	Hosts(ctx context.Context, text string, since time.Time) ([]string, error)
}

// Join returns source with the tags of b's hosts.
func (b *Book) Join(source Source, tagger Tagger) *Joined {
	return &Joined{source: source, tagger: tagger, book: b}
}

// Select implements query.Source.
func (j *Joined) Select(ctx context.Context, sel query.Selector, from, to int64) ([]metric.Series, error) {
	p := j.plan(sel.Scope)
	if p == nil {
		return j.source.Select(ctx, sel, from, to)
	}
	var out []metric.Series
	for _, scope := range p.scopes {
		found, err := j.source.Select(ctx, query.Selector{Metric: sel.Metric, Scope: scope, Trailing: sel.Trailing}, from, to)
		if err != nil {
			return nil, err
		}
		kept := found[:0]
		for _, s := range found {
			s.Tags = p.tags(s.Host, s.Tags)
			if p.exact || sel.Scope.Match(query.TagsOf(s)) {
				kept = append(kept, s)
			}
		}
		if out == nil {
			out = kept
			continue
		}
		out = append(out, kept...)
	}
	return out, nil
}

// Settled implements query.SettledSource.
func (j *Joined) Settled(name string) (before int64, state any) {
	before, own := j.source.Settled(name)
	return before, [2]any{own, j.State()}
}

// Pace implements query.PacedSource.
func (j *Joined) Pace(name string) int64 { return j.source.Pace(name) }

// Distributions implements query.DistributionSource.
func (j *Joined) Distributions(ctx context.Context, sel query.Selector, from, to int64) iter.Seq2[*metric.Distribution, error] {
	p := j.plan(sel.Scope)
	if p == nil {
		return j.source.Distributions(ctx, sel, from, to)
	}
	return func(yield func(*metric.Distribution, error) bool) {
		for _, scope := range p.scopes {
			for d, err := range j.source.Distributions(ctx, query.Selector{Metric: sel.Metric, Scope: scope}, from, to) {
				if err != nil {
					yield(nil, err)
					return
				}
				one := *d
				one.Tags = p.tags(d.Host, d.Tags)
				if !p.exact && !sel.Scope.Match(query.TagsOf(metric.Series{Host: one.Host, Tags: one.Tags})) {
					continue
				}
				if !yield(&one, nil) {
					return
				}
			}
		}
	}
}

// Tags returns the tags of a metric's contexts, those of their hosts among them.
func (j *Joined) Tags(ctx context.Context, name string, since time.Time) (metric.Tags, error) {
	own, err := j.tagger.Tags(ctx, name, since)
	view := j.book.hosts.view()
	if err != nil || len(view.tags) == 0 && !j.book.raw.any() {
		return own, err
	}
	all := make(map[string]bool, len(own))
	for _, tag := range own {
		all[metric.NormalizeTag(tag)] = true
		if host, ok := strings.CutPrefix(tag, "host:"); ok {
			for _, t := range view.of(host) {
				all[t] = true
			}
		}
	}
	out := make([]string, 0, len(all))
	for tag := range all {
		out = append(out, tag)
	}
	return metric.NewTags(out...), nil
}

// Hosts returns the hosts with data.
func (j *Joined) Hosts(ctx context.Context, text string, since time.Time) ([]string, error) {
	return j.tagger.Hosts(ctx, text, since)
}
