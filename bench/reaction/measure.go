package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	target = 20               // of the autoscalers
	sync15 = 15 * time.Second // the controller's period, over which loads begin
	limit  = 3 * time.Minute  // for an autoscaler to act
	look   = 200 * time.Millisecond
)

type durations []time.Duration

// quantile returns the smallest that at least a share q of them does not exceed.
func (d durations) quantile(q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}

// result is what was found of a system.
type result struct {
	system
	seen, scaled, age durations
}

// measure sets a system up, loads its apps and takes it down again.
func (c *cluster) measure(ctx context.Context, s system, sender *sender, api *apiserver) (result, error) {
	r := result{system: s}
	if err := c.upgrade(ctx, s.values); err != nil {
		return r, err
	}
	for _, file := range []string{"workloads.yaml", s.manifests} {
		if err := c.apply(ctx, file, "apply"); err != nil {
			return r, err
		}
	}
	paths := make([]reads, c.apps)
	if err := wait(ctx, 2*time.Minute, func() error {
		for i := range paths {
			var err error
			if paths[i], err = api.metricsOf(ctx, s.prefix+app(i)); err != nil {
				return err
			}
			for _, path := range []string{paths[i].requests, paths[i].clock} {
				if _, err := api.value(ctx, path); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		return r, err
	}
	if err := sleep(ctx, s.settle); err != nil {
		return r, err
	}
	for range c.rounds {
		if err := c.calm(ctx, api, paths); err != nil {
			return r, err
		}
		_ = sender.failure() // of before
		ages := make(chan durations)
		aging, stop := context.WithCancel(ctx)
		go func() { ages <- c.ages(aging, sender, api, paths) }()
		err := c.round(ctx, &r, sender, api, paths)
		stop()
		r.age = append(r.age, <-ages...)
		for i := range c.apps {
			sender.load(i, idle)
		}
		if err != nil {
			return r, err
		}
	}
	if len(r.age) == 0 {
		return r, errors.New("the clock was never read")
	}
	if err := c.apply(ctx, s.manifests, "delete --wait --ignore-not-found"); err != nil {
		return r, err
	}
	return r, c.apply(ctx, "workloads.yaml", "delete --wait --ignore-not-found")
}

// calm waits until every app is seen idle and has one replica.
func (c *cluster) calm(ctx context.Context, api *apiserver, paths []reads) error {
	return wait(ctx, 5*time.Minute, func() error {
		want, err := api.replicas(ctx)
		if err != nil {
			return err
		}
		for i := range paths {
			v, err := api.value(ctx, paths[i].requests)
			if err != nil {
				return err
			}
			if v >= target || want[app(i)] != 1 {
				return fmt.Errorf("%s is at %g with %d replicas", app(i), v, want[app(i)])
			}
		}
		return nil
	})
}

// round loads all apps, over one period of the controller, and follows each.
func (c *cluster) round(ctx context.Context, r *result, sender *sender, api *apiserver, paths []reads) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var mu sync.Mutex // guards r and errs
	var errs []error
	var wg sync.WaitGroup
	for i := range c.apps {
		wg.Go(func() {
			if err := sleep(ctx, sync15*time.Duration(i)/time.Duration(c.apps)); err != nil {
				return
			}
			began := time.Now()
			sender.load(i, c.load)
			seen, scaled, err := follow(ctx, api, paths[i].requests, app(i), began)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", app(i), err))
				return
			}
			r.seen, r.scaled = append(r.seen, seen), append(r.scaled, scaled)
		})
	}
	wg.Wait()
	return errors.Join(append(errs, sender.failure())...)
}

// follow waits for the value to pass the target, and for the replicas.
func follow(ctx context.Context, api *apiserver, path, name string, began time.Time) (seen, scaled time.Duration, err error) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for seen == 0 || scaled == 0 {
		select {
		case <-ctx.Done():
			return 0, 0, fmt.Errorf("not within %s: value above target after %s, replicas after %s", limit, seen, scaled)
		case <-tick.C:
		}
		if seen == 0 {
			if v, err := api.value(ctx, path); err == nil && v >= target {
				seen = time.Since(began)
			}
		}
		if want, err := api.replicas(ctx); err == nil && want[name] > 1 {
			scaled = time.Since(began)
			if seen == 0 {
				seen = scaled // between two looks
			}
		}
	}
	return seen, scaled, nil
}

// ages reads the clocks in turn until ctx ends.
func (c *cluster) ages(ctx context.Context, sender *sender, api *apiserver, paths []reads) (out durations) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return out
		case <-tick.C:
		}
		// What time it was when it was asked: the read itself is not the value's age.
		now := sender.now()
		if v, err := api.value(ctx, paths[i%len(paths)].clock); err == nil {
			out = append(out, time.Duration(max(0, now-v)*float64(time.Second)))
		}
	}
}

// wait repeats try until it succeeds.
func wait(ctx context.Context, limit time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		if sleep(ctx, time.Second) != nil {
			return fmt.Errorf("not within %s: %w", limit, err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
