// Package check runs checks: small programs that ask one thing about itself at
// an interval and tell the answer as series and service checks, as Datadog's
// integrations do.
//
// It owns when checks run, what their submissions mean (Sender), where their
// configuration comes from (files, and annotations of this node's pods), how
// much a pod's configuration is trusted, and what is said about each instance.
// It does not know what any check does: the kinds are given to New. It does not
// know where series go.
package check

import (
	"context"
	"time"
)

// DefaultInterval is how often an instance runs unless min_collection_interval
// or its kind says otherwise.
const DefaultInterval = 15 * time.Second

// A Check is one instance of a check: it watches one thing.
type Check interface {
	// Run asks once and submits to s, which it may not keep. It ends when ctx
	// does. What was submitted before an error is sent all the same. Run is
	// never called twice at once.
	Run(ctx context.Context, s *Sender) error
	// Close gives back what Run left open. Run is not called after it.
	Close()
}

// A Kind makes the checks of one name.
type Kind struct {
	Name string
	// FileOnly kinds may not be configured by a pod.
	FileOnly bool
	// NoHost says that what is watched is not on this host: series have none, so
	// that two agents that watch the same thing submit the same context.
	NoHost bool
	// New makes a check of a configuration. The error names the key that cannot
	// be used and what it should hold.
	New func(*Instance) (Check, error)
}
