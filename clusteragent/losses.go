package clusteragent

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Reasons of events about a metric whose value went and came.
const (
	metricLost  = "MetricUnavailable"
	metricFound = "MetricAvailable"
)

// lossPeriod is how often metrics are looked through for values that went or came.
const lossPeriod = 5 * time.Second

// losses knows which metrics had a value when they were last looked at.
type losses map[string]loss

type loss struct {
	had  bool // a value, once
	lost bool
}

// A turn is a metric whose value went or came, for those who read it.
type turn struct {
	row    Row
	reason string
	text   string
}

// look returns what has turned since the last look. A metric that never had a
// value has not lost it: of that the autoscaler's own controller tells.
func (l losses) look(rows []Row) (turns []turn) {
	seen := map[string]bool{}
	for _, r := range rows {
		key := r.Metric + "\x00" + r.Query
		seen[key] = true
		was := l[key]
		switch {
		case r.State == stateUnused:
			delete(l, key)
		case r.Valid && was.lost:
			turns = append(turns, turn{r, metricFound, fmt.Sprintf("metric %s has a value again: %s", r.Metric, r.Value)})
			l[key] = loss{had: true}
		case r.Valid:
			l[key] = loss{had: true}
		case was.had && !was.lost:
			text := fmt.Sprintf("metric %s has no value any more, so replicas are held: %s", r.Metric, r.Error)
			if r.Value != "" {
				text += fmt.Sprintf(" (the last was %s, %s old)", r.Value, time.Duration(r.Age)*time.Second)
			}
			turns = append(turns, turn{r, metricLost, text})
			l[key] = loss{had: true, lost: true}
		}
	}
	for key := range l {
		if !seen[key] {
			delete(l, key)
		}
	}
	return turns
}

// watchLosses tells autoscalers of values that went and came until ctx ends, and
// then returns nil. All replicas look, so that the next leader knows.
func (a *agent) watchLosses(ctx context.Context) error {
	known := losses{}
	tick := time.NewTicker(lossPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !a.serving.Load() {
			continue
		}
		for _, t := range known.look(a.rows(time.Now())) {
			a.tellReaders(t)
		}
	}
}

func (a *agent) tellReaders(t turn) {
	kind := corev1.EventTypeWarning
	if t.reason == metricFound {
		kind = corev1.EventTypeNormal
	}
	for _, by := range t.row.by {
		a.events.lead(autoscaler(by, a.index.UID(by)), kind, t.reason, t.text)
	}
}
