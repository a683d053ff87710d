package record

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"kelpie.dev/kelpie/metric"
)

// What one event may be, as Datadog documents it: the time from its API client,
// text and aggregation key from its API. Longer ones are cut, and counted.
const (
	maxEventPast   = 18 * time.Hour
	maxEventFuture = 2 * time.Hour
	maxTitle       = 500 // characters; ours, Datadog names none any more
	maxText        = 4000
	maxShort       = 100 // of keys and sources
	maxEventTags   = 100
)

// An Event is a kept event. Its identifiers rise with its time.
type Event struct {
	ID int64
	metric.Event
}

// AddEvents keeps events, and returns them as they are kept: with a time, their
// texts within bounds and their hosts' tags beside their own. An event out of time is not kept; refused has a line for
// it. Where there are too many in all, the oldest make room. An error means that
// none is kept. Tags must be normalized.
func (b *Book) AddEvents(ctx context.Context, events []metric.Event) (added []Event, refused []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if err := b.writable(); err != nil {
		return nil, nil, err
	}
	now := b.opts.Now()
	for _, e := range events {
		if e.Time == 0 {
			e.Time = now.Unix()
		}
		if age := now.Sub(time.Unix(e.Time, 0)); age > maxEventPast || age < -maxEventFuture {
			b.metrics.refused.WithLabelValues(kindEvent, reasonTime).Inc()
			refused = append(refused, fmt.Sprintf("event %.60q: its time %d is more than 18 hours in the past or 2 hours in the future", e.Title, e.Time))
			continue
		}
		if more := b.HostTags(e.Host); len(more) > 0 {
			e.Tags = merge(e.Tags, more) // as Datadog does
		}
		b.bound(&e)
		added = append(added, Event{Event: e})
	}
	if len(added) == 0 {
		return nil, refused, nil
	}
	if err := b.db.Update(func(tx *bolt.Tx) error { return b.putEvents(tx, added) }); err != nil {
		return nil, nil, fmt.Errorf("keep %d events: %w", len(added), err)
	}
	b.metrics.kept.WithLabelValues(kindEvent).Add(float64(len(added)))
	return added, refused, nil
}

// bound cuts what is too long of e and fills in what is missing.
func (b *Book) bound(e *metric.Event) {
	was := len(e.Title) + len(e.Text) + len(e.AggregationKey) + len(e.SourceType) + len(e.Host) + len(e.Tags)
	e.Title, e.Text = cut(e.Title, maxTitle), cut(e.Text, maxText)
	e.AggregationKey, e.SourceType, e.Host = cut(e.AggregationKey, maxShort), cut(e.SourceType, maxShort), cut(e.Host, 255)
	e.Tags = e.Tags[:min(len(e.Tags), maxEventTags)]
	if was != len(e.Title)+len(e.Text)+len(e.AggregationKey)+len(e.SourceType)+len(e.Host)+len(e.Tags) {
		b.metrics.cut.WithLabelValues(kindEvent).Inc()
	}
	if e.Priority != "low" {
		e.Priority = "normal"
	}
	e.AlertType = cut(e.AlertType, maxShort)
	setDefault(&e.AlertType, "info")
}

// cut returns the first n characters of s, as valid UTF-8.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// idBits of an identifier tell events of one second apart; above them is the second.
const idBits = 30

func (b *Book) putEvents(tx *bolt.Tx, events []Event) error {
	bucket := tx.Bucket(bucketEvents)
	var n, bytes int64
	for i := range events {
		e := &events[i]
		seq, err := bucket.NextSequence()
		if err != nil {
			return err
		}
		e.ID = e.Time<<idBits | int64(seq&(1<<idBits-1))
		v, err := json.Marshal(e)
		if err == nil {
			err = bucket.Put(eventKey(e.ID), v)
		}
		if err != nil {
			return err
		}
		n++
		bytes += int64(8 + len(v))
	}
	dropped := 0
	c := bucket.Cursor()
	for k, v := c.First(); k != nil && (b.events.Load()+n > int64(b.opts.MaxEvents) || b.eventBytes.Load()+bytes > b.opts.MaxEventBytes); k, v = c.First() {
		n--
		bytes -= int64(len(k) + len(v))
		dropped++
		if err := c.Delete(); err != nil {
			return err
		}
	}
	tx.OnCommit(func() {
		b.events.Add(n)
		b.eventBytes.Add(bytes)
		b.metrics.dropped.WithLabelValues(kindEvent).Add(float64(dropped))
	})
	return nil
}

func eventKey(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

// Event returns the event with an identifier, and whether there is one.
func (b *Book) Event(id int64) (e Event, ok bool, err error) {
	err = b.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketEvents).Get(eventKey(id))
		ok = v != nil
		if !ok {
			return nil
		}
		return json.Unmarshal(v, &e)
	})
	if err != nil {
		return Event{}, false, fmt.Errorf("read event %d: %w", id, err)
	}
	return e, ok, nil
}

// A Filter selects events. Zero values select all but for the times.
type Filter struct {
	From, To int64    // Unix seconds, both inclusive
	Priority string   // "normal" or "low"
	Sources  []string // one of them, in any case
	Tags     []string // all of them
	Skip     int      // so many of the newest
	Limit    int      // at most so many; 0 means all
}

func (f *Filter) match(e *Event) bool {
	if f.Priority != "" && e.Priority != f.Priority {
		return false
	}
	if len(f.Sources) > 0 && !slices.ContainsFunc(f.Sources, func(s string) bool { return strings.EqualFold(s, e.SourceType) }) {
		return false
	}
	for _, tag := range f.Tags {
		if !e.Tags.Has(tag) && tag != "host:"+strings.ToLower(e.Host) {
			return false
		}
	}
	return true
}

// Events returns the events that f selects, newest first.
func (b *Book) Events(ctx context.Context, f Filter) ([]Event, error) {
	if f.From < 0 || f.From > f.To {
		return nil, nil
	}
	to := min(f.To, 1<<(63-idBits)-1)
	var out []Event
	err := b.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketEvents).Cursor()
		last := eventKey((to+1)<<idBits - 1)
		k, v := c.Seek(last)
		if k == nil {
			k, v = c.Last()
		} else if string(k) > string(last) {
			k, v = c.Prev()
		}
		first := string(eventKey(f.From << idBits))
		for ; k != nil && string(k) >= first && ctx.Err() == nil; k, v = c.Prev() {
			var e Event
			if err := json.Unmarshal(v, &e); err != nil {
				return err
			}
			if !f.match(&e) {
				continue
			}
			if f.Skip > 0 {
				f.Skip--
				continue
			}
			if out = append(out, e); len(out) == f.Limit {
				return nil
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return out, nil
}

func (b *Book) forgetEvents(tx *bolt.Tx, before int64) (more bool, err error) {
	c := tx.Bucket(bucketEvents).Cursor()
	limit := string(eventKey(max(before, 0) << idBits))
	var n, bytes int64
	for k, v := c.First(); k != nil && string(k) < limit; k, v = c.First() {
		if n == forgetAtOnce {
			more = true
			break
		}
		n++
		bytes += int64(len(k) + len(v))
		if err := c.Delete(); err != nil {
			return false, err
		}
	}
	tx.OnCommit(func() {
		b.events.Add(-n)
		b.eventBytes.Add(-bytes)
	})
	return more, nil
}
