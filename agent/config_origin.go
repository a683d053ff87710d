package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/env"
)

// OriginConfig is about where samples come from, and the tags that follow.
type OriginConfig struct {
	Credentials   bool               // by the Unix socket's sender: DD_DOGSTATSD_ORIGIN_DETECTION (false)
	Client        bool               // by the fields c:, e:, card:: DD_DOGSTATSD_ORIGIN_DETECTION_CLIENT (false)
	Addresses     bool               // by the pod's IP on UDP: KELPIE_DOGSTATSD_ORIGIN_DETECTION_UDP (when one of the two above is)
	Unified       bool               // first origin only: DD_ORIGIN_DETECTION_UNIFIED (false)
	EntityIDFirst bool               // dd.internal.entity_id replaces the socket's container: DD_DOGSTATSD_ENTITY_ID_PRECEDENCE (false)
	OptOut        bool               // a sample may ask for no origin tags: DD_DOGSTATSD_ORIGIN_OPTOUT_ENABLED (true)
	Cardinality   origin.Cardinality // DD_DOGSTATSD_TAG_CARDINALITY (low)
	// GaugeCardinality is Cardinality when that is set; else orchestrator, as
	// gauges of several pods with the same tags would overwrite each other:
	// KELPIE_DOGSTATSD_GAUGE_CARDINALITY.
	GaugeCardinality origin.Cardinality
	ProcRoot         string // DD_CONTAINER_PROC_ROOT (/proc)
	CgroupRoot       string // DD_CONTAINER_CGROUP_ROOT (/host/sys/fs/cgroup if that is there, else /sys/fs/cgroup)
	// Tags are DD_KUBERNETES_{POD_LABELS,POD_ANNOTATIONS,NAMESPACE_LABELS,NODE_LABELS}_AS_TAGS,
	// DD_KUBERNETES_RESOURCES_LABELS_AS_TAGS, DD_CONTAINER_ENV_AS_TAGS,
	// DD_TAG_VALUE_SPLIT_SEPARATOR, DD_KUBERNETES_AD_TAGS_DISABLED and
	// DD_KUBERNETES_PERSISTENT_VOLUME_CLAIMS_AS_TAGS (true).
	Tags    origin.TagOptions
	Kubelet *origin.KubeletOptions // nil without DD_KUBERNETES_KUBELET_HOST
	// Cluster is nil unless DD_CLUSTER_AGENT_ENABLED, at DD_CLUSTER_AGENT_URL
	// or the service DD_CLUSTER_AGENT_KUBERNETES_SERVICE_NAME, with
	// DD_CLUSTER_AGENT_AUTH_TOKEN.
	Cluster *origin.ClusterAgentOptions
}

func originConfig(r *env.Reader) (OriginConfig, error) {
	c := OriginConfig{
		Credentials:   r.Bool(false, "DD_DOGSTATSD_ORIGIN_DETECTION"),
		Client:        r.Bool(false, "DD_DOGSTATSD_ORIGIN_DETECTION_CLIENT"),
		Unified:       r.Bool(false, "DD_ORIGIN_DETECTION_UNIFIED"),
		EntityIDFirst: r.Bool(false, "DD_DOGSTATSD_ENTITY_ID_PRECEDENCE"),
		OptOut:        r.Bool(true, "DD_DOGSTATSD_ORIGIN_OPTOUT_ENABLED"),
		ProcRoot:      r.String("/proc", "DD_CONTAINER_PROC_ROOT"),
		CgroupRoot:    r.String(cgroupRoot(), "DD_CONTAINER_CGROUP_ROOT"),
	}
	c.Addresses = r.Bool(c.Credentials || c.Client, "KELPIE_DOGSTATSD_ORIGIN_DETECTION_UDP")
	var errs []error
	given := r.String("", "DD_DOGSTATSD_TAG_CARDINALITY")
	var err error
	if c.Cardinality, err = cardinality("DD_DOGSTATSD_TAG_CARDINALITY", given, "low"); err != nil {
		errs = append(errs, err)
	}
	if given == "" || err != nil { // one mistake is one error
		given = "orchestrator"
	}
	if c.GaugeCardinality, err = cardinality("KELPIE_DOGSTATSD_GAUGE_CARDINALITY", r.String("", "KELPIE_DOGSTATSD_GAUGE_CARDINALITY"), given); err != nil {
		errs = append(errs, err)
	}
	if c.Tags, err = tagOptions(r); err != nil {
		errs = append(errs, err)
	}
	if host := r.String("", "DD_KUBERNETES_KUBELET_HOST"); host != "" {
		c.Kubelet = &origin.KubeletOptions{
			Host: host, Port: r.Int(10250, "DD_KUBERNETES_HTTPS_KUBELET_PORT"),
			CAFile:    r.String("", "DD_KUBELET_CLIENT_CA"),
			TokenFile: r.String("", "DD_KUBELET_AUTH_TOKEN_PATH"),
			Insecure:  !r.Bool(true, "DD_KUBELET_TLS_VERIFY"),
		}
	}
	if r.Bool(false, "DD_CLUSTER_AGENT_ENABLED") {
		if c.Cluster, err = clusterConfig(r); err != nil {
			errs = append(errs, err)
		}
	}
	return c, errors.Join(errs...)
}

// cgroupRoot is where the node's control groups are, as seen from here.
func cgroupRoot() string {
	const mounted = "/host/sys/fs/cgroup"
	if _, err := os.Stat(mounted); err == nil {
		return mounted
	}
	return "/sys/fs/cgroup"
}

func cardinality(name, word, def string) (origin.Cardinality, error) {
	if word == "" {
		word = def
	}
	level, ok := origin.ParseCardinality(word)
	if !ok {
		return level, fmt.Errorf("environment variable %s: expected none, low, orchestrator or high", name)
	}
	return level, nil
}

func tagOptions(r *env.Reader) (origin.TagOptions, error) {
	o := origin.TagOptions{
		NoVolumeClaims: !r.Bool(true, "DD_KUBERNETES_PERSISTENT_VOLUME_CLAIMS_AS_TAGS"),
		NoServices:     slices.Contains(r.List("DD_KUBERNETES_AD_TAGS_DISABLED"), "kube_service"),
	}
	var errs []error
	for _, m := range []struct {
		name string
		to   *origin.TagMap
	}{
		{"DD_KUBERNETES_POD_LABELS_AS_TAGS", &o.PodLabels},
		{"DD_KUBERNETES_POD_ANNOTATIONS_AS_TAGS", &o.PodAnnotations},
		{"DD_KUBERNETES_NAMESPACE_LABELS_AS_TAGS", &o.NamespaceLabels},
		{"DD_KUBERNETES_NODE_LABELS_AS_TAGS", &o.NodeLabels},
		{"DD_CONTAINER_ENV_AS_TAGS", &o.ContainerEnv},
	} {
		parsed, err := origin.ParseTagMap(r.String("", m.name))
		if err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", m.name, err))
		}
		*m.to = parsed
	}
	resources, err := origin.ParseResourceTagMaps(r.String("", "DD_KUBERNETES_RESOURCES_LABELS_AS_TAGS"))
	if err != nil {
		errs = append(errs, fmt.Errorf("environment variable DD_KUBERNETES_RESOURCES_LABELS_AS_TAGS: %w", err))
	}
	o.PodLabels = o.PodLabels.Merge(resources["pods"])
	o.NamespaceLabels = o.NamespaceLabels.Merge(resources["namespaces"])
	o.NodeLabels = o.NodeLabels.Merge(resources["nodes"])
	if text := r.String("", "DD_TAG_VALUE_SPLIT_SEPARATOR"); text != "" {
		if err := json.Unmarshal([]byte(text), &o.Split); err != nil {
			errs = append(errs, errors.New(`environment variable DD_TAG_VALUE_SPLIT_SEPARATOR: expected JSON such as {"tag": ","}`))
		}
	}
	return o, errors.Join(errs...)
}

// clusterConfig says how to reach the cluster agent. Kubernetes tells pods by
// variables where the services of their namespace are.
func clusterConfig(r *env.Reader) (*origin.ClusterAgentOptions, error) {
	o := &origin.ClusterAgentOptions{
		URL:    r.String("", "DD_CLUSTER_AGENT_URL"),
		Token:  r.String("", "DD_CLUSTER_AGENT_AUTH_TOKEN"),
		Node:   r.String("", "DD_KUBERNETES_NODE_NAME", "DD_HOSTNAME"),
		CAFile: r.String("", "KELPIE_CLUSTER_AGENT_CA"),
		// As Datadog's agent does: its cluster agent signs its own certificate.
		Insecure: !r.Bool(false, "KELPIE_CLUSTER_AGENT_TLS_VERIFY"),
	}
	if o.URL == "" {
		service := strings.ToUpper(strings.ReplaceAll(r.String("datadog-cluster-agent", "DD_CLUSTER_AGENT_KUBERNETES_SERVICE_NAME"), "-", "_"))
		host, port := r.String("", service+"_SERVICE_HOST"), r.String("5005", service+"_SERVICE_PORT")
		if host == "" {
			return nil, fmt.Errorf("environment variable %s_SERVICE_HOST is not set: DD_CLUSTER_AGENT_ENABLED needs a cluster agent's service, or DD_CLUSTER_AGENT_URL", service)
		}
		o.URL = "https://" + net.JoinHostPort(host, port)
	}
	if o.Token == "" {
		return nil, errors.New("environment variable DD_CLUSTER_AGENT_AUTH_TOKEN is not set: the cluster agent answers nobody without it")
	}
	return o, nil
}
