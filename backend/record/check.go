package record

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"kelpie.dev/kelpie/metric"
)

const (
	maxCheckAge     = 10 * time.Minute // Datadog's: older runs, and later ones, are ignored
	maxCheckMessage = 500              // characters
	// keptRuns is how many runs of a context are kept: a monitor asks for a few
	// in a row.
	keptRuns = 20
)

// A Check is a context of a service check with its newest run, and what it
// found before.
type Check struct {
	metric.ServiceCheck
	Since int64 // Unix seconds of the run from which on its status is what it is
	Runs  []Run // newest first, the newest among them
}

// A Run is one run of a check.
type Run struct {
	Time   int64
	Status metric.CheckStatus
}

// AddChecks keeps runs of service checks. A run out of time, or of a context
// beyond the limit, is not kept; refused has a line for it. An error means that
// none is kept. Tags must be normalized.
func (b *Book) AddChecks(ctx context.Context, checks []metric.ServiceCheck) (refused []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := b.writable(); err != nil {
		return nil, err
	}
	now := b.opts.Now()
	kept := make([]metric.ServiceCheck, 0, len(checks))
	for _, c := range checks {
		if c.Time == 0 {
			c.Time = now.Unix()
		}
		if age := now.Sub(time.Unix(c.Time, 0)); age > maxCheckAge || age < -maxCheckAge {
			b.metrics.refused.WithLabelValues(kindCheck, reasonTime).Inc()
			refused = append(refused, fmt.Sprintf("service check %.60q: its time %d is more than 10 minutes from now", c.Name, c.Time))
			continue
		}
		if name := cut(c.Name, metric.MaxNameLength); name != c.Name || len(c.Message) > maxCheckMessage {
			c.Name, c.Message = name, cut(c.Message, maxCheckMessage)
			b.metrics.cut.WithLabelValues(kindCheck).Inc()
		}
		kept = append(kept, c)
	}
	if len(kept) == 0 {
		return refused, nil
	}
	// Agents send every few seconds, each a little: Batch writes several at once.
	var beyond []string
	err = b.db.Batch(func(tx *bolt.Tx) (err error) {
		beyond, err = b.putChecks(tx, kept)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("keep %d service checks: %w", len(kept), err)
	}
	b.metrics.refused.WithLabelValues(kindCheck, reasonLimit).Add(float64(len(beyond)))
	b.metrics.kept.WithLabelValues(kindCheck).Add(float64(len(kept) - len(beyond)))
	return append(refused, beyond...), nil
}

func (b *Book) putChecks(tx *bolt.Tx, checks []metric.ServiceCheck) (refused []string, err error) {
	bucket := tx.Bucket(bucketChecks)
	var fresh int64
	for i := range checks {
		key := checkKey(&checks[i])
		var state Check
		old := bucket.Get(key)
		switch {
		case old != nil:
			if err := json.Unmarshal(old, &state); err != nil {
				return nil, err
			}
		case b.checks.Load()+fresh >= int64(b.opts.MaxChecks):
			refused = append(refused, fmt.Sprintf("service check %.60q: there are %d contexts of service checks, which is the limit (KELPIE_MAX_CHECKS)", checks[i].Name, b.opts.MaxChecks))
			continue
		default:
			fresh++
		}
		state.add(checks[i])
		v, err := json.Marshal(state)
		if err == nil {
			err = bucket.Put(key, v)
		}
		if err != nil {
			return nil, err
		}
	}
	// Several batches in one transaction do not see each other's: the limit may
	// be passed by one of them.
	tx.OnCommit(func() { b.checks.Add(fresh) })
	return refused, nil
}

// add notes a run. One that is older than the newest changes its history only.
func (c *Check) add(run metric.ServiceCheck) {
	i := 0
	for i < len(c.Runs) && c.Runs[i].Time > run.Time {
		i++
	}
	r := Run{Time: run.Time, Status: run.Status}
	if i < len(c.Runs) && c.Runs[i].Time == run.Time {
		c.Runs[i] = r // the last write wins
	} else {
		c.Runs = append(c.Runs[:i:i], append([]Run{r}, c.Runs[i:]...)...)
	}
	c.Runs = c.Runs[:min(len(c.Runs), keptRuns)]
	if i > 0 {
		return
	}
	if c.Since == 0 || c.Status != run.Status {
		c.Since = run.Time
	}
	c.ServiceCheck = run
}

// checkKey is the name, so that checks of one name lie together, and a hash of
// the rest of the context, which may be longer than a key.
func checkKey(c *metric.ServiceCheck) []byte {
	h := sha256.New()
	h.Write([]byte(c.Host))
	for _, t := range c.Tags {
		h.Write([]byte{0})
		h.Write([]byte(t))
	}
	key := append([]byte(c.Name), 0)
	return append(key, h.Sum(nil)[:16]...)
}

// Checks returns the contexts of the check with a name, or of all with "".
func (b *Book) Checks(ctx context.Context, name string) ([]Check, error) {
	var prefix []byte
	if name != "" {
		prefix = append([]byte(name), 0)
	}
	var out []Check
	err := b.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketChecks).Cursor()
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix) && ctx.Err() == nil; k, v = c.Next() {
			var state Check
			if err := json.Unmarshal(v, &state); err != nil {
				return err
			}
			out = append(out, state)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list service checks: %w", err)
	}
	return out, nil
}

func (b *Book) forgetChecks(tx *bolt.Tx, before int64) (more bool, err error) {
	n, more, err := forget(tx.Bucket(bucketChecks), func(v []byte) (bool, error) {
		var c Check
		err := json.Unmarshal(v, &c)
		return c.Time < before, err
	})
	tx.OnCommit(func() { b.checks.Add(-int64(n)) })
	return more, err
}

// forget deletes the records of bucket for which old holds, up to forgetAtOnce.
func forget(bucket *bolt.Bucket, old func(v []byte) (bool, error)) (n int, more bool, err error) {
	var gone [][]byte
	c := bucket.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		is, err := old(v)
		if err != nil {
			return 0, false, err
		}
		if is {
			gone = append(gone, bytes.Clone(k))
		}
		if len(gone) == forgetAtOnce {
			more = true
			break
		}
	}
	for _, k := range gone {
		if err := bucket.Delete(k); err != nil {
			return 0, false, err
		}
	}
	return len(gone), more, nil
}
