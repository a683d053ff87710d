package clusteragent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"kelpie.dev/kelpie/clusteragent/externalmetrics"
)

// serve opens the API once there is something to answer with: a certificate,
// caches that tell an unknown metric from one not seen yet, and values, unless
// their source keeps us waiting.
func (a *agent) serve(ctx context.Context) error {
	if err := a.certificate(ctx); err != nil {
		return err
	}
	if !a.waitForCaches(ctx) {
		return nil
	}
	first, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	a.source.AwaitAll(first)
	cancel()
	p := &externalmetrics.Provider{Index: a.index, Values: a.source, Rules: a.cfg.Rules, Policy: a.cfg.Policy, Autogen: a.cfg.Autogen}
	if a.objects != nil {
		p.Objects = a.objects
	}
	p.KEDA = a.keda
	p.Instrument(a.reg, a.proc.Log)
	server, err := externalmetrics.NewServer(externalmetrics.ServerOptions{
		Config: a.rest, Kubeconfig: a.cfg.Kubeconfig, Port: a.cfg.Port, Listener: a.proc.Listener, Provider: p, Certificate: a.keeper,
		LegacyTLS: a.cfg.LegacyTLS, Linger: a.cfg.Linger, Flags: a.cfg.Flags, Authorizations: p.Authorizations(), Serving: func() {
			a.serving.Store(true)
			a.proc.Log.Info("serving external metrics", "port", a.cfg.Port, "crd", a.cfg.CRD, "source", a.cfg.Endpoint)
		},
	})
	if err != nil {
		return err // names itself
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.keeper.Run(ctx) })
	g.Go(func() error { return server.Run(ctx) })
	return g.Wait() // both name themselves
}

// certificate waits until there is a certificate to serve with. The API server
// may be slow or permissions may come late; the pod's log says which. For
// cert-manager it waits without end: each restart would only be backed off longer.
func (a *agent) certificate(ctx context.Context) error {
	const attempts = 10
	for i := 1; ; i++ {
		err := a.keeper.Ensure(ctx)
		if cert, _ := a.keeper.CurrentCertKeyContent(); cert != nil {
			return nil // if it could not be renewed, the keeper tries on
		}
		if err == nil || i == attempts && !a.cfg.TLSIssued {
			return err // names itself
		}
		a.proc.Log.Warn("no certificate to serve with yet, will retry", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(min(i, attempts)) * time.Second):
		}
	}
}

func (a *agent) waitForCaches(ctx context.Context) bool {
	hint := time.NewTicker(10 * time.Second)
	defer hint.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := a.synced()
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-poll.C:
		case <-hint.C:
			a.proc.Log.Warn("not serving yet", "waiting_for", err.Error())
		}
	}
}

func (a *agent) synced() error {
	if !a.indexed() {
		return errors.New("the list of HorizontalPodAutoscalers (may the cluster agent list and watch them?)")
	}
	if a.wpas != nil && !a.wpas.complete.Load() {
		return errors.New("the list of WatermarkPodAutoscalers (may the cluster agent list and watch them?)")
	}
	if a.objects != nil && !a.objects.Synced() {
		return errors.New("the list of DatadogMetrics (is their CRD installed, and may the cluster agent list and watch them?)")
	}
	return nil
}

// ready reports whether requests can be answered, and should be by this replica.
func (a *agent) ready() error {
	if !a.cfg.Enabled {
		return nil
	}
	if a.serving.Load() {
		return a.reach.lost(time.Now())
	}
	if err := a.synced(); err != nil {
		return fmt.Errorf("external metrics are not served yet, waiting for %w", err)
	}
	if wrong, _ := a.keeper.Certificate(); wrong != "" {
		return fmt.Errorf("external metrics are not served yet: %s", wrong)
	}
	return errors.New("external metrics are not served yet; the log says what is missing")
}
