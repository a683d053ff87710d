package clusteragent

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"kelpie.dev/kelpie/clusteragent/reference"
)

// watermarks watches WatermarkPodAutoscalers as soon as their CRD is installed.
type watermarks struct {
	discovery discovery.ServerResourcesInterface
	client    dynamic.Interface
	index     *reference.Index
	first     time.Duration // until the CRD is looked for again; doubles to slowest
	log       *slog.Logger
	complete  atomic.Bool // the index knows all that there were at first
}

func (a *agent) newWatermarks() error {
	if !a.cfg.Watermarks {
		return nil
	}
	client, err := dynamic.NewForConfig(a.rest)
	if err != nil {
		return fmt.Errorf("connect to Kubernetes: %w", err)
	}
	a.wpas = &watermarks{discovery: a.kube.Discovery(), client: client, index: a.index, first: 5 * time.Second, log: a.proc.Log}
	return nil
}

// referencesComplete reports whether the index has seen all autoscalers.
func (a *agent) referencesComplete() bool {
	return a.indexed() && (a.wpas == nil || a.wpas.complete.Load())
}

// run follows the WatermarkPodAutoscalers until ctx ends, and then returns nil.
func (w *watermarks) run(ctx context.Context) error {
	if !w.await(ctx) {
		return nil
	}
	inf := dynamicinformer.NewFilteredDynamicInformer(w.client, reference.Watermarks, "", 0, cache.Indexers{}, nil).Informer()
	if err := inf.SetTransform(reference.TrimWatermark); err != nil {
		return fmt.Errorf("watch WatermarkPodAutoscalers: %w", err)
	}
	registration, err := inf.AddEventHandler(w.index.WatermarkHandler())
	if err != nil {
		return fmt.Errorf("watch WatermarkPodAutoscalers: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { inf.RunWithContext(ctx); return nil })
	g.Go(func() error {
		if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			w.complete.Store(true)
		}
		return nil
	})
	return g.Wait()
}

// await waits for the CRD and reports false when ctx ends before. While there is
// none, there is nothing that the index could miss.
func (w *watermarks) await(ctx context.Context) bool {
	const slowest = 5 * time.Minute
	for wait := w.first; ; wait = min(2*wait, slowest) {
		installed, err := w.installed()
		switch {
		case installed:
			return true
		case err != nil:
			w.log.Warn("cannot tell whether WatermarkPodAutoscalers are installed, will retry", "error", err, "in", wait.String())
		default:
			if !w.complete.Swap(true) {
				w.log.Info("WatermarkPodAutoscalers are switched on and their CRD is not installed: waiting for it", "resource", reference.Watermarks.GroupResource().String())
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

func (w *watermarks) installed() (bool, error) {
	list, err := w.discovery.ServerResourcesForGroupVersion(reference.Watermarks.GroupVersion().String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("discover %s: %w", reference.Watermarks.GroupVersion(), err)
	}
	for _, r := range list.APIResources {
		if r.Name == reference.Watermarks.Resource {
			return true, nil
		}
	}
	return false, nil
}
