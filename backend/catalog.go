package backend

import (
	"context"
	"net/http"
	"time"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/record"
	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/metric"
)

// catalog is what the query API lists: the store, with the tags that hosts lend.
type catalog struct {
	*store.Store
	joined *record.Joined
	book   *record.Book
}

// Tags returns the tags of a metric's contexts, those of their hosts among them.
func (c catalog) Tags(ctx context.Context, name string, since time.Time) (metric.Tags, error) {
	return c.joined.Tags(ctx, name, since)
}

// HostTags returns the hosts with data since, with the tags of each: those that
// all its series bear, and those that its agent told.
func (c catalog) HostTags(ctx context.Context, since time.Time) (map[string]metric.Tags, error) {
	hosts, err := c.Store.HostTags(ctx, since)
	for host, tags := range hosts {
		hosts[host] = tags.Union(c.book.HostTags(host)...)
	}
	return hosts, err
}

// scopeOfValues is the scope of application keys for queries.
const scopeOfValues = "timeseries_query"

// valueKeys lets in who may query.
type valueKeys struct{ *auth.Checker }

// Read checks both keys of a request, and the application key's scope.
func (k valueKeys) Read(r *http.Request) error {
	_, err := k.Allow(r, scopeOfValues)
	return err
}
