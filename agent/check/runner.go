package check

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

// discoverEvery is how often the pods are looked at for changes.
const discoverEvery = 5 * time.Second

// maxFirstWait bounds how long a new instance waits for its first run. The
// wait differs by instance, so that those that start together run apart.
const maxFirstWait = 5 * time.Second

// Options configures a Runner. Kinds is required.
type Options struct {
	Kinds []Kind
	Host  string      // of series, unless their kind has none
	Tags  metric.Tags // of all series

	// Dir holds the configuration files, as Datadog's agent reads them; "" for none.
	Dir string
	// Defaults run unless a file configures a check of the same name.
	Defaults []Instance
	// Pods, when not nil, are looked at for annotations that ask for checks.
	Pods Pods
	// Cardinality of the tags of a pod on the series of its checks; the zero
	// value is none, Datadog's default is low.
	Cardinality origin.Cardinality
	// AnyTarget lets a pod's checks ask other addresses than the pod's own.
	AnyTarget bool
	// PodEnv names the variables of the agent's environment that a pod's
	// configuration may read as %%env_<NAME>%%.
	PodEnv []string

	Env        func(string) (string, bool) // the agent's environment; nil means os.LookupEnv
	Now        func() time.Time            // nil means time.Now
	Log        *slog.Logger                // nil discards
	Registerer prometheus.Registerer       // nil registers nothing
}

// Output takes what one run submitted. It may be called from several
// goroutines at once, and keeps what it is given.
type Output func(context.Context, []metric.Series, []metric.ServiceCheck)

// Runner runs instances of checks, each in its own goroutine, so that none
// waits for another. Make one with New.
type Runner struct {
	o         Options
	kinds     map[string]Kind
	metrics   *metrics
	discovery discovery

	mu       sync.Mutex // guards all below
	jobs     map[uint64]*job
	fixed    []Problem // of files
	problems []Problem // of pods, and of instances that could not be made
}

// New returns a Runner that runs nothing until Run.
func New(o Options) (*Runner, error) {
	if o.Env == nil {
		o.Env = os.LookupEnv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the checks' metrics: %w", err)
	}
	r := &Runner{o: o, kinds: map[string]Kind{}, metrics: m, jobs: map[uint64]*job{}}
	for _, k := range o.Kinds {
		r.kinds[k.Name] = k
	}
	r.discovery = discovery{
		anyTarget: o.AnyTarget, fileEnv: o.Env,
		podEnv: func(name string) (string, bool) {
			if !slices.Contains(o.PodEnv, name) {
				return "", false
			}
			return o.Env(name)
		},
	}
	return r, nil
}

// Run runs checks until ctx ends, and waits for the runs in progress, whose
// results are not told any more. The files are read once, at the start. It
// must be called once.
func (r *Runner) Run(ctx context.Context, out Output) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	static := r.files()
	ticker := time.NewTicker(discoverEvery)
	defer ticker.Stop()
	var seen uint64
	for first := true; ; first = false {
		wanted, problems, changed := r.discover(static, &seen)
		if changed || first {
			r.reconcile(ctx, &wg, wanted, problems, out)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// files reads the configuration files, and returns the instances that watch no
// pod, the defaults included.
func (r *Runner) files() []*Instance {
	documents, problems := readDir(r.o.Dir)
	var static []*Instance
	configured := map[string]bool{}
	for _, d := range documents {
		configured[d.check] = true
		if len(d.Identifiers) > 0 {
			r.discovery.templates = append(r.discovery.templates, d)
			if r.o.Pods == nil {
				problems = append(problems, Problem{Source: d.source, Check: d.check, Error: `key "ad_identifiers": this agent knows no pods: set DD_KUBERNETES_KUBELET_HOST, or remove the key`})
			}
			continue
		}
		instances, err := d.static(r.o.Env)
		if err != nil {
			problems = append(problems, Problem{Source: d.source, Check: d.check, Error: err.Error()})
			continue
		}
		static = append(static, instances...)
	}
	for i := range r.o.Defaults {
		if d := r.o.Defaults[i]; !configured[d.Check] {
			d.Access.File = true
			d.Source = cmp.Or(d.Source, "default")
			static = append(static, &d)
		}
	}
	for _, p := range problems {
		r.o.Log.Warn("a check's configuration cannot be used", "source", p.Source, "check", p.Check, "error", p.Error)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fixed = problems
	return static
}

// discover returns what should run. changed is false when it is the same as
// the last time.
func (r *Runner) discover(static []*Instance, seen *uint64) (wanted []*Instance, problems []Problem, changed bool) {
	if r.o.Pods == nil {
		return static, nil, false
	}
	r.o.Pods.Use()
	pods, generation := r.o.Pods.Snapshot()
	if generation == *seen {
		return static, nil, false
	}
	*seen = generation
	found, problems := r.discovery.instances(pods)
	return slices.Concat(static, found), problems, true
}

// reconcile starts what is wanted and does not run, and stops what runs and is
// not wanted.
func (r *Runner) reconcile(ctx context.Context, wg *sync.WaitGroup, wanted []*Instance, problems []Problem, out Output) {
	keep := map[uint64]bool{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range wanted {
		id := i.id()
		for keep[id] { // the same instance twice runs twice
			id++
		}
		keep[id] = true
		if r.jobs[id] != nil {
			continue
		}
		j, err := r.newJob(i, id)
		if err != nil {
			problems = append(problems, Problem{Source: i.Source, Check: shorten(i.Check), Error: err.Error()})
			continue
		}
		jobCtx, cancel := context.WithCancel(ctx)
		j.cancel = cancel
		r.jobs[id] = j
		wg.Go(func() { j.loop(jobCtx, out) })
	}
	for id, j := range r.jobs {
		if !keep[id] {
			j.cancel()
			delete(r.jobs, id)
		}
	}
	for _, p := range problems {
		if !slices.Contains(r.problems, p) {
			r.o.Log.Warn("a check's configuration cannot be used", "source", p.Source, "check", p.Check, "error", p.Error)
		}
	}
	r.problems = problems
	r.metrics.configured(len(r.jobs), len(problems)+len(r.fixed))
}

// newJob makes the check of an instance.
func (r *Runner) newJob(i *Instance, id uint64) (j *job, err error) {
	defer func() {
		if p := recover(); p != nil {
			j, err = nil, fmt.Errorf("the check failed while it read its configuration: %v: this is a defect of the check, please report it", p)
		}
	}()
	kind, ok := r.kinds[i.Check]
	if !ok {
		names := make([]string, 0, len(r.kinds))
		for name := range r.kinds {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, fmt.Errorf("there is no check %q: expected one of %s; what exports Prometheus metrics, openmetrics can read", shorten(i.Check), strings.Join(names, ", "))
	}
	if kind.FileOnly && !i.Access.File {
		return nil, fmt.Errorf("a pod may not configure the check %q: put it into a file of conf.d", i.Check)
	}
	i.common, i.warnings = common{}, nil // of an earlier attempt
	if err := i.decodeCommon(); err != nil {
		return nil, err
	}
	c, err := kind.New(i)
	if err != nil {
		return nil, err
	}
	j = &job{
		id: id, instance: i, check: c, sender: newSender(), interval: i.interval(), tags: r.o.Tags.Union(i.tags()...),
		host: r.o.Host, pods: r.o.Pods, cardinality: r.o.Cardinality, now: r.o.Now, log: r.o.Log, metrics: r.metrics,
	}
	if kind.NoHost || i.common.EmptyDefaultHostname {
		j.host = ""
	}
	if i.common.DisableTags {
		j.pods = nil
	}
	return j, nil
}
