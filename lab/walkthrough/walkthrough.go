// Package walkthrough is the user's story, as steps that run: what is typed,
// what must be seen, and how long it took. The demo narrates the steps and the
// test asserts them; there is one description of each.
//
// It types real commands into a real shell against whatever cluster KUBECONFIG
// names. It does not know how that cluster came to be: see lab/node for ours.
package walkthrough

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Mode is how HPAs name metrics.
type Mode string

// The two modes of the external metrics provider.
const (
	Inline Mode = "inline" // mode A: an HPA names the metric and its tags
	CRD    Mode = "crd"    // mode B: an HPA names a DatadogMetric
)

// Options configures a Run. Root, Bin, Kubeconfig and Registry are required.
type Options struct {
	Mode       Mode
	Root       string    // the repository's root
	Bin        []string  // folders put before PATH: kelpie, kubectl, helm and hey are there
	Kubeconfig string    // the cluster
	Registry   string    // where pods pull kelpie and test-metric-app from, such as 10.244.0.1:5000
	Tag        string    // of the kelpie image; "" means "latest"
	KEDATag    string    // of the images of make keda-image; only KEDASteps need it
	Out        io.Writer // the narration
}

// A Step is one row of the walkthrough's table.
type Step struct {
	Row   string // the row's number: "4", "7A"
	Title string // one line that says what happens and why
	// Proof marks a step that only the test runs: it breaks things, or needs
	// longer than a person wants to watch.
	Proof bool
	Do    func(ctx context.Context, r *Run) error
}

// Run carries out steps against one cluster.
type Run struct {
	opts   Options
	sh     shell
	apiKey string
	appKey string
	// forwarded is the port-forward to the application, once there is one.
	forwarded *background
	// Result of the load step; zero until it has run.
	Up, Down time.Duration // 1 → 5 and 5 → 1 replicas
	Peak     int           // replicas seen at most
	First    time.Duration // from the first request to the metric being queryable
}

// New returns a Run with keys of its own: nothing else is accepted by the
// backend that the walkthrough installs.
func New(o Options) (*Run, error) {
	if o.Mode != Inline && o.Mode != CRD {
		return nil, fmt.Errorf("mode %q: expected %q or %q", o.Mode, Inline, CRD)
	}
	if o.Tag == "" {
		o.Tag = "latest"
	}
	for _, path := range []string{o.Kubeconfig, filepath.Join(o.Root, "charts", "kelpie", "Chart.yaml")} {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("start the walkthrough: %w", err)
		}
	}
	r := &Run{opts: o, apiKey: hexKey(16), appKey: hexKey(20)}
	r.sh = shell{
		dir: filepath.Join(o.Root, "examples", "walkthrough"),
		out: o.Out,
		env: append(slices.Clone(os.Environ()),
			"KUBECONFIG="+o.Kubeconfig,
			"PATH="+joinPath(o.Bin)+":"+os.Getenv("PATH"),
			"API_KEY="+r.apiKey, "APP_KEY="+r.appKey, "REGISTRY="+o.Registry),
	}
	return r, nil
}

// Steps returns the walkthrough of mode m in order.
func Steps(m Mode) []Step {
	steps := []Step{
		{Row: "1", Title: "A namespace for Kelpie", Do: createNamespace},
		{Row: "2", Title: "The two keys: the backend will accept these and no others", Do: createKeys},
		{Row: "3", Title: "Install the chart, with the values that Datadog's chart takes", Do: install},
		{Row: "4", Title: "Kubernetes now asks Kelpie for external metrics, over verified TLS", Do: apiService},
		{Row: "5", Title: "An application that counts its requests with a DogStatsD client", Do: application},
		{Row: "6", Title: "One request, and its metric can be queried", Do: firstRequest},
	}
	if m == CRD {
		steps = append(steps,
			Step{Row: "7A", Title: "An inline HPA makes a DatadogMetric of its own, and takes it along when it goes", Proof: true, Do: autogen},
			Step{Row: "7B", Title: "A DatadogMetric, and an HPA that names it", Do: applyCRD})
	} else {
		steps = append(steps, Step{Row: "7A", Title: "An HPA that names the metric and its tags", Do: applyInline})
	}
	steps = append(steps, Step{Row: "8", Title: "Load: watch the replicas follow", Do: load})
	if m == CRD {
		steps = append(steps, Step{Row: "9", Title: "What the DatadogMetric says of itself", Do: describeMetric})
	}
	steps = append(steps,
		Step{Row: "10", Title: "The metrics that Kubernetes can see now", Do: exposed},
		Step{Row: "11", Title: "The polling interval is a setting", Proof: true, Do: pollingInterval},
		Step{Row: "7", Title: "Each way to name a metric, read by the controller", Proof: true, Do: naming},
		Step{Row: "6", Title: "Over each socket a metric bears its pod's tags", Proof: true, Do: podTags},
		Step{Row: "12", Title: "A wrong tag is named, by the HPA and by doctor", Proof: true, Do: wrongTag},
		Step{Row: "12", Title: "A syntax error is named with its position", Proof: true, Do: syntaxError},
		Step{Row: "12", Title: "A wrong application key is named", Proof: true, Do: wrongAppKey},
		Step{Row: "12", Title: "A stopped backend is named, and its last value is not acted on", Proof: true, Do: backendStopped},
		Step{Row: "12", Title: "A replaced certificate is repaired, and a lost one made anew", Proof: true, Do: certificateReplaced},
		Step{Row: "12", Title: "A stopped cluster agent is named, and replicas are held", Proof: true, Do: clusterAgentStopped},
	)
	if m == CRD {
		steps = append(steps, Step{Row: "12", Title: "Three replicas: rolled, the leader ended, the leader killed", Proof: true, Do: threeReplicas})
	}
	return append(steps, Step{Row: "13", Title: "A team writes in its own namespace, and reads what the policy lets it", Proof: true, Do: teams})
}

// Narrate writes a step's heading.
func (r *Run) Narrate(s Step) {
	_, _ = fmt.Fprintf(r.opts.Out, "\n── %s. %s\n", s.Row, s.Title)
}

// owned is the label of the namespaces that a walkthrough made: only what bears
// it is ever removed, as their names are those that Datadog's own guides use.
const owned = "kelpie.dev/walkthrough"

// Clean removes what an earlier or this walkthrough made from the cluster, and
// ends the commands that still run. It touches nothing else, and is an error
// when the names are taken by somebody else. It is safe to call at any time.
func (r *Run) Clean(ctx context.Context) error {
	r.sh.stopBackground()
	var made []string
	for _, ns := range []string{"team-b", "test", "datadog"} {
		label, err := r.sh.ask(ctx, `kubectl get namespace `+ns+` --ignore-not-found -o jsonpath='{.metadata.name}={.metadata.labels.kelpie\.dev/walkthrough}'`)
		if err != nil {
			return fmt.Errorf("look for what an earlier walkthrough left: %w", err)
		}
		switch label {
		case "": // there is none
		case ns + "=true":
			made = append(made, ns)
		default:
			return fmt.Errorf("namespace %s exists and is not the walkthrough's: use another cluster, or remove it yourself", ns)
		}
	}
	if len(made) == 0 {
		return nil
	}
	// The release first: an APIService whose service is gone keeps Kubernetes from
	// ending any namespace.
	_, err := r.sh.ask(ctx, `helm uninstall datadog-agent --namespace datadog --ignore-not-found --wait --timeout 90s
kubectl delete namespace `+strings.Join(made, " ")+` --timeout=120s`)
	if err != nil {
		return fmt.Errorf("remove what the walkthrough made: %w", err)
	}
	return nil
}

// own marks a namespace that the walkthrough has just made.
func (r *Run) own(ctx context.Context, namespace string) error {
	_, err := r.sh.ask(ctx, `kubectl label namespace `+namespace+` `+owned+`=true`)
	return err
}
