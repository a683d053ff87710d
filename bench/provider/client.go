package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
)

// A client reads external metrics over TLS as the API server forwards them: with
// its certificate, and with the HPA controller's name in headers.
type client struct {
	http *http.Client
	base string
	path func(i int) string
	n    int // metrics
}

func newClient(k *kubernetesAPI, base string, n int, path func(int) string) *client {
	transport := &http.Transport{
		// Whose certificate it is, the API server checks; here it costs the sender only.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{k.proxy}, MinVersion: tls.VersionTLS13},
		ForceAttemptHTTP2: true,
	}
	return &client{http: &http.Client{Transport: transport, Timeout: 30 * time.Second}, base: base, n: n, path: path}
}

// read reads metric i and returns the age of its value.
func (c *client) read(ctx context.Context, i int) (age time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+c.path(i), nil)
	if err != nil {
		return 0, fmt.Errorf("read metric %d: %w", i, err)
	}
	req.Header = http.Header{"Accept": {"application/json"}, "X-Remote-User": {reader},
		"X-Remote-Group": {"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"}}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read metric %d: %w", i, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("read metric %d: %w", i, err)
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("read metric %d: %s: %s", i, resp.Status, body)
	}
	var list v1beta1.ExternalMetricValueList
	if err := json.Unmarshal(body, &list); err != nil || len(list.Items) != 1 {
		return 0, fmt.Errorf("read metric %d: %d items in %s: %w", i, len(list.Items), body, err)
	}
	return time.Since(list.Items[0].Timestamp.Time), nil
}

// readings are what a while of reads brought.
type readings struct {
	took   []time.Duration // from when each was due
	ages   []time.Duration
	failed int
	err    error // one of those that failed
	during time.Duration
}

// pace reads every metric once per sync period for a while, evenly, whether or
// not earlier reads have been answered, as autoscalers do not wait for each other.
func (c *client) pace(ctx context.Context, sync time.Duration, while time.Duration) *readings {
	gap := sync / time.Duration(c.n)
	total := int(while / gap)
	due := make(chan int, total)
	start := time.Now()
	return c.gather(256, func(each func(time.Time, int)) func() error {
		return func() error {
			for k := range due {
				each(start.Add(time.Duration(k)*gap), k%c.n)
			}
			return nil
		}
	}, func() {
		defer close(due)
		for k := range total {
			if wait := time.Until(start.Add(time.Duration(k) * gap)); wait > 0 {
				time.Sleep(wait)
			}
			if ctx.Err() != nil {
				return
			}
			due <- k
		}
	}, ctx)
}

// flood reads without pause, with so many readers.
func (c *client) flood(ctx context.Context, readers int, while time.Duration) *readings {
	var next atomic.Int64
	end := time.Now().Add(while)
	return c.gather(readers, func(each func(time.Time, int)) func() error {
		return func() error {
			for now := time.Now(); now.Before(end) && ctx.Err() == nil; now = time.Now() {
				each(now, int(next.Add(1))%c.n)
			}
			return nil
		}
	}, func() {}, ctx)
}

func (c *client) gather(readers int, loop func(each func(time.Time, int)) func() error, feed func(), ctx context.Context) *readings {
	out := &readings{}
	var mu sync.Mutex
	start := time.Now()
	each := func(due time.Time, i int) {
		age, err := c.read(ctx, i)
		took := time.Since(due)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			out.failed++
			out.err = err
			return
		}
		out.took, out.ages = append(out.took, took), append(out.ages, age)
	}
	var g errgroup.Group
	for range readers {
		g.Go(loop(each))
	}
	feed()
	_ = g.Wait() // its functions return nil
	out.during = time.Since(start)
	return out
}
