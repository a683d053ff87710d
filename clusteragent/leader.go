package clusteragent

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// leader takes part in the election of the one replica that writes.
type leader struct {
	cfg     Config
	client  kubernetes.Interface
	gained  func()
	log     *slog.Logger
	leading atomic.Bool
	holder  atomic.Pointer[string] // who holds the lease, as last seen; nil before
	gauge   *prometheus.GaugeVec
}

func newLeader(cfg Config, client kubernetes.Interface, reg prometheus.Registerer, log *slog.Logger) *leader {
	l := &leader{cfg: cfg, client: client, gained: func() {}, log: log,
		gauge: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "leader_election_is_leader", Help: "1, labelled with whether this replica leads.",
			ConstLabels: prometheus.Labels{"join_leader": "true"}}, []string{"is_leader"})}
	reg.MustRegister(l.gauge)
	l.set(false)
	return l
}

// isLeader reports whether this replica may write now.
func (l *leader) isLeader() bool { return l.leading.Load() }

// name returns the replica that leads, or "" while this one knows of none.
func (l *leader) name() string {
	if l.isLeader() {
		return l.cfg.Identity
	}
	if h := l.holder.Load(); h != nil && *h != l.cfg.Identity {
		return *h
	}
	return ""
}

func (l *leader) set(leading bool) {
	l.leading.Store(leading)
	l.gauge.Reset()
	l.gauge.WithLabelValues(fmt.Sprint(leading)).Set(1)
}

// run takes part until ctx ends, and then returns nil. A replica that loses the
// lease goes on serving, and stands again.
func (l *leader) run(ctx context.Context) error {
	if !l.cfg.Election {
		l.set(true)
		l.gained()
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		won := make(chan struct{})
		e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Namespace: l.cfg.Namespace, Name: l.cfg.LeaseName},
				Client:    l.client.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: l.cfg.Identity},
			},
			LeaseDuration: l.cfg.LeaseDuration, RenewDeadline: l.cfg.LeaseDuration * 2 / 3, RetryPeriod: l.cfg.LeaseDuration / 6,
			ReleaseOnCancel: l.cfg.ReleaseLease, Name: "kelpie-cluster-agent",
			Callbacks: leaderelection.LeaderCallbacks{
				// The elector calls this in a goroutine that nobody waits for, perhaps
				// after the lease is lost: it may signal and no more.
				OnStartedLeading: func(context.Context) { close(won) },
				OnStoppedLeading: func() {},
				OnNewLeader:      func(holder string) { l.holder.Store(&holder) },
			},
		})
		if err != nil {
			return fmt.Errorf("stand for leader with lease %s/%s: %w", l.cfg.Namespace, l.cfg.LeaseName, err)
		}
		l.term(ctx, won, e.Run)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// term leads from when won is closed until elect, which holds the lease, returns.
func (l *leader) term(ctx context.Context, won <-chan struct{}, elect func(context.Context)) {
	over := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(over)
		elect(ctx)
		return nil
	})
	defer func() { _ = g.Wait() }() // its function returns nil
	select {
	case <-over:
	case <-won:
	}
	select {
	case <-over: // perhaps as well as won
		return
	default:
	}
	l.set(true)
	l.log.Info("leading: this replica writes status", "lease", l.cfg.LeaseName)
	l.gained()
	<-over
	l.set(false)
	l.log.Info("no longer leading", "lease", l.cfg.LeaseName)
}
