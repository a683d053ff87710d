package forward

import (
	"maps"
	"time"
)

// Status describes an endpoint to people.
type Status struct {
	URL           string          `json:"url"`
	APIKey        string          `json:"api_key"` // its fingerprint: sha256: and six hex digits
	Delivered     uint64          `json:"delivered_payloads"`
	DeliveredPts  uint64          `json:"delivered_points"`
	DroppedPts    uint64          `json:"dropped_points"`
	Retries       uint64          `json:"retries"`
	LastSuccess   *time.Time      `json:"last_success,omitempty"`
	LastError     string          `json:"last_error,omitempty"` // with its mend
	LastErrorAt   *time.Time      `json:"last_error_at,omitempty"`
	Failing       bool            `json:"failing"`        // the newest request of some kind failed
	QueuePayloads int             `json:"queue_payloads"` // that wait, in memory and on disk
	QueueBytes    int             `json:"queue_bytes"`    // of those in memory
	OldestQueued  *time.Time      `json:"oldest_queued,omitempty"`
	Spool         *SpoolStatus    `json:"spool,omitempty"`     // nil without one
	FastLane      *FastLaneStatus `json:"fast_lane,omitempty"` // nil of an intake that does not speak of one
	Kinds         []KindStatus    `json:"kinds,omitempty"`     // those of which something was sent or dropped
}

// SpoolStatus describes what waits on disk.
type SpoolStatus struct {
	Directory string `json:"directory"`
	Payloads  int    `json:"payloads"`
	Bytes     int64  `json:"bytes"` // in blocks of 4 KiB, as disks give them
	Limit     int64  `json:"limit_bytes"`
	Foreign   int    `json:"foreign_files"`   // that are no payload's, and are left alone
	Error     string `json:"error,omitempty"` // why payloads wait in memory only
}

// KindStatus is one kind's part. Service checks and events count as points.
type KindStatus struct {
	Kind              string            `json:"kind"`
	Failing           bool              `json:"failing"`
	DeliveredPayloads uint64            `json:"delivered_payloads"`
	DeliveredPoints   uint64            `json:"delivered_points"`
	Retries           uint64            `json:"retries"`
	DroppedPoints     map[string]uint64 `json:"dropped_points,omitempty"` // by reason
}

// senderStatus is what a sender notes for its Status.
type senderStatus struct {
	kinds       [kinds]KindStatus
	LastSuccess *time.Time
	LastError   string
	LastErrorAt *time.Time
	spoolError  string
	foreign     int
}

// failing reports whether the newest request of some kind failed.
func (s *sender) failing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.status.kinds {
		if k.Failing {
			return true
		}
	}
	return false
}

// snapshot returns the status.
func (s *sender) snapshot() Status {
	d := s.queue.depth()
	st := Status{URL: s.name, APIKey: s.key.fingerprint(), QueuePayloads: d.payloads, QueueBytes: d.bytes}
	if d.payloads > 0 {
		st.OldestQueued = &d.oldest
	}
	st.FastLane = s.offer.status()
	s.mu.Lock()
	defer s.mu.Unlock()
	st.LastSuccess, st.LastError, st.LastErrorAt = s.status.LastSuccess, s.status.LastError, s.status.LastErrorAt
	if s.dir != "" {
		st.Spool = &SpoolStatus{Directory: s.dir, Payloads: d.files, Bytes: d.diskBytes, Limit: s.o.SpoolBytes,
			Foreign: s.status.foreign, Error: s.status.spoolError}
	}
	for i, k := range s.status.kinds {
		k.Kind, k.DroppedPoints = kind(i).String(), maps.Clone(k.DroppedPoints)
		st.Delivered += k.DeliveredPayloads
		st.DeliveredPts += k.DeliveredPoints
		st.Retries += k.Retries
		st.Failing = st.Failing || k.Failing
		for _, n := range k.DroppedPoints {
			st.DroppedPts += n
		}
		if k.Failing || k.DeliveredPayloads+k.Retries > 0 || len(k.DroppedPoints) > 0 {
			st.Kinds = append(st.Kinds, k)
		}
	}
	return st
}
