package queryapi

import (
	"cmp"
	"time"
)

// SetSlow changes Options.Slow of a running API.
func (a *API) SetSlow(d time.Duration) { a.slowAfter.Store(int64(cmp.Or(d, time.Second))) }
