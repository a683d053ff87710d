package agent

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/check/kubelet"
	"kelpie.dev/kelpie/agent/check/nginx"
	"kelpie.dev/kelpie/agent/check/openmetrics"
	"kelpie.dev/kelpie/agent/check/sqs"
	"kelpie.dev/kelpie/agent/dogstatsd"
	"kelpie.dev/kelpie/agent/origin"
)

// openListeners binds the sockets. A Unix socket that cannot be had is a
// warning, as UDP goes on; a UDP port that cannot be had is an error.
func openListeners(c Config, d Deps) (out []*dogstatsd.Listener, err error) {
	defer func() {
		if err != nil {
			closeAll(out)
		}
	}()
	s := c.DogStatsD
	o := dogstatsd.ListenOptions{
		BufferSize: s.BufferSize, ReceiveBuffer: s.ReceiveBuffer, QueueSize: s.QueueSize, Credentials: c.Origin.Credentials,
		EOLRequired: slices.Contains(s.EOLRequired, "uds"), Log: d.Log,
	}
	for _, unix := range []struct {
		path string
		open func(dogstatsd.ListenOptions) (*dogstatsd.Listener, error)
	}{{s.Socket, dogstatsd.OpenUnixgram}, {s.StreamSocket, dogstatsd.OpenUnixStream}} {
		if o.Address = unix.path; o.Address == "" {
			continue
		}
		l, err := unix.open(o)
		switch {
		case err == nil:
			out = append(out, l)
		case s.UDPAddr != "":
			d.Log.Warn("no Unix socket for DogStatsD; UDP goes on", "error", err)
		default:
			return out, err
		}
	}
	if o.Address = s.UDPAddr; o.Address != "" {
		o.EOLRequired = slices.Contains(s.EOLRequired, "udp")
		o.Readers = cmp.Or(s.Readers, defaultReaders(runtime.GOMAXPROCS(0)))
		l, err := dogstatsd.OpenUDP(o)
		if err != nil {
			return out, err
		}
		out = append(out, l)
	}
	for _, l := range out {
		if err := registerListener(d.Registry, l); err != nil {
			return out, fmt.Errorf("register the listener's metrics: %w", err)
		}
	}
	return out, nil
}

// defaultReaders is how many readers share the UDP port. Taking a small datagram
// from the kernel costs ten times what its line does, so that one reader is the
// bound of a large machine; on a small one it leaves the pipeline its processor.
func defaultReaders(processors int) int { return min(max(1, processors/2), 4) }

func closeAll(listeners []*dogstatsd.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}

// surroundings is what the agent knows of its node. The zero value is a node
// without a kubelet.
type surroundings struct {
	tagger  *origin.Tagger // nil without a kubelet
	kubelet *origin.Kubelet
	cluster *origin.ClusterAgent // nil when there is none to ask
}

func (s *surroundings) close() {
	if s.kubelet != nil {
		s.kubelet.Close()
	}
	if s.cluster != nil {
		s.cluster.Close()
	}
}

// labelsTime bounds how long a start waits for the labels of the node.
const labelsTime = 3 * time.Second

// openOrigin finds out whom to ask about this node. Tags of the node's labels
// join c's host tags.
func openOrigin(ctx context.Context, c *Config, d Deps, m *metrics) (*surroundings, error) {
	s := &surroundings{}
	if c.Origin.Kubelet == nil {
		if c.Origin.Credentials || c.Origin.Client || c.Origin.Addresses {
			d.Log.Warn("origin detection is on, but there is no kubelet to ask; samples go without the tags of their origin",
				"mend", "set DD_KUBERNETES_KUBELET_HOST to status.hostIP")
		}
		return s, nil
	}
	var err error
	if s.kubelet, err = origin.OpenKubelet(*c.Origin.Kubelet); err != nil {
		return nil, err
	}
	o := origin.TaggerOptions{
		Source: s.kubelet, Tags: c.Origin.Tags, CgroupRoot: c.Origin.CgroupRoot, Log: d.Log, Asked: m.kubeletAsked,
	}
	if c.Origin.Cluster != nil {
		if s.cluster, err = origin.OpenClusterAgent(*c.Origin.Cluster); err != nil {
			s.close()
			return nil, err
		}
		o.Cluster = s.cluster
	}
	if !c.Origin.Tags.NodeLabels.Empty() {
		c.Tags = c.Tags.Union(nodeTags(ctx, c, d, s.cluster)...)
	}
	s.tagger = origin.NewTagger(o)
	return s, nil
}

// nodeTags asks for the labels of the node, which become host tags. Host tags
// are on every series, so that they are asked for before the first.
func nodeTags(ctx context.Context, c *Config, d Deps, cluster *origin.ClusterAgent) []string {
	if cluster == nil {
		d.Log.Warn("labels of the node are to become tags, but only a cluster agent knows them", "mend", "set DD_CLUSTER_AGENT_ENABLED, or unset DD_KUBERNETES_NODE_LABELS_AS_TAGS")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, labelsTime)
	defer cancel()
	labels, err := cluster.NodeLabels(ctx)
	if err != nil {
		d.Log.Warn("the labels of the node are not known: series go without their tags until the agent starts again", "error", err)
		return nil
	}
	return origin.NodeTags(labels, c.Origin.Tags)
}

// checkOptions lists the checks that this agent has.
func checkOptions(c Config, d Deps, known *surroundings) check.Options {
	o := check.Options{
		Kinds: []check.Kind{openmetrics.Kind(), nginx.Kind(), sqs.Kind()},
		Host:  c.Hostname, Tags: c.Tags, Dir: c.Checks.Dir, Cardinality: c.Checks.Cardinality,
		AnyTarget: c.Checks.AnyTarget, PodEnv: c.Checks.PodEnv, Now: d.Now, Log: d.Log, Registerer: d.Registry,
	}
	if known.tagger == nil {
		return o
	}
	if c.Checks.Discover {
		o.Pods = known.tagger
	}
	o.Kinds = append(o.Kinds, kubelet.Kind(known.kubelet, known.tagger))
	if c.Checks.Kubelet {
		o.Defaults = []check.Instance{{Check: "kubelet"}}
	}
	return o
}
