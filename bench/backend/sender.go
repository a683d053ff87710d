package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"kelpie.dev/kelpie/metric"
)

// senders post at a time, each on a connection of its own. A context is always
// sent by the same one, so that its points arrive in order.
const senders = 2

// A sender posts its share of a load's batches.
type sender struct {
	server *server
	client *http.Client
	encoder
}

func newSenders(s *server) ([]*sender, error) {
	all := make([]*sender, senders)
	for i := range all {
		e, err := s.encoder()
		if err != nil {
			return nil, err
		}
		all[i] = &sender{server: s, encoder: e, client: &http.Client{Transport: &http.Transport{MaxIdleConns: 1}, Timeout: time.Minute}}
	}
	return all, nil
}

// round posts one point of every series, all of a time. began, when set, is
// called before each batch, with the index of its first series.
func round(ctx context.Context, all []*sender, series []metric.Series, n int, at int64, began func(first int)) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range all {
		g.Go(func() error {
			for first := i * batchSize; first < len(series); first += len(all) * batchSize {
				batch := series[first:min(first+batchSize, len(series))]
				setPoints(batch, first, n, at)
				body, err := s.encode(batch)
				if err != nil {
					return err
				}
				if began != nil {
					began(first)
				}
				if err := s.post(ctx, body); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (s *sender) post(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.server.base+s.server.path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("post to %s: %w", s.server.name, err)
	}
	req.Header = s.server.header.Clone()
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("post to %s: %w", s.server.name, err)
	}
	if err := answered(resp); err != nil {
		return fmt.Errorf("post to %s: %w", s.server.name, err)
	}
	return nil
}
