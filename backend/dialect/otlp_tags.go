package dialect

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"kelpie.dev/kelpie/metric"
)

type keyValue = common.KeyValue

// resourceTags maps resource attributes of OpenTelemetry's semantic conventions
// to the tags that Datadog's exporter makes of them. Other attributes of a
// resource are no tags, unless they have the prefix of customTags.
var resourceTags = map[string]string{
	"service.name": "service", "service.version": "version",
	"deployment.environment": "env", "deployment.environment.name": "env",

	"container.id": "container_id", "container.name": "container_name", "container.runtime": "runtime",
	"container.image.name": "image_name", "container.image.tag": "image_tag", "container.image.tags": "image_tag",
	"cloud.provider": "cloud_provider", "cloud.region": "region", "cloud.availability_zone": "zone",

	"k8s.cluster.name": "kube_cluster_name", "k8s.namespace.name": "kube_namespace",
	"k8s.pod.name": "pod_name", "k8s.container.name": "kube_container_name", "k8s.deployment.name": "kube_deployment",
	"k8s.replicaset.name": "kube_replica_set", "k8s.statefulset.name": "kube_stateful_set", "k8s.daemonset.name": "kube_daemon_set",
	"k8s.job.name": "kube_job", "k8s.cronjob.name": "kube_cronjob",

	"app.kubernetes.io/name": "kube_app_name", "app.kubernetes.io/instance": "kube_app_instance", "app.kubernetes.io/version": "kube_app_version",
	"app.kubernetes.io/component": "kube_app_component", "app.kubernetes.io/part-of": "kube_app_part_of", "app.kubernetes.io/managed-by": "kube_app_managed_by",

	"aws.ecs.task.family": "task_family", "aws.ecs.task.arn": "task_arn", "aws.ecs.task.revision": "task_version",
	"aws.ecs.cluster.arn": "ecs_cluster_name", "aws.ecs.container.arn": "ecs_container_name",

	"os.type": "os.type", "process.executable.name": "process.executable.name",
}

// customTags is the prefix of resource attributes that become tags by the rest
// of their name.
const customTags = "datadog.container.tag."

// Where the host of a resource stands, the first that is there.
var hostAttributes = []string{"datadog.host.name", "host.name"}

// A resource is what sends, in Datadog's words.
type resource struct {
	host string
	tags metric.Tags
	key  string // of all its attributes: what tells one process from another
}

func resourceOf(attributes []*keyValue) resource {
	var r resource
	all := make(map[string]string, len(attributes))
	pairs := make([]string, 0, len(attributes))
	var tags []string
	for _, kv := range attributes {
		v := text(kv.GetValue())
		all[kv.GetKey()] = v
		pairs = append(pairs, strconv.Quote(kv.GetKey())+v)
		key := resourceTags[kv.GetKey()]
		if custom, ok := strings.CutPrefix(kv.GetKey(), customTags); ok {
			key = custom
		}
		switch {
		case v == "":
		case key != "":
			tags = append(tags, key+":"+v)
		case strings.HasPrefix(kv.GetKey(), "kube_"), kv.GetKey() == "pod_name": // Datadog's own words
			tags = append(tags, kv.GetKey()+":"+v)
		}
	}
	slices.Sort(pairs)
	r.tags, r.key = metric.NewTags(tags...), strings.Join(pairs, "\x00")
	for _, a := range hostAttributes {
		if r.host = all[a]; r.host != "" {
			return r
		}
	}
	if r.host = all["k8s.node.name"]; r.host != "" && all["k8s.cluster.name"] != "" {
		r.host += "-" + all["k8s.cluster.name"] // as Datadog's agents name nodes of a named cluster
	}
	return r
}

// with returns the resource's tags and those of a point's attributes.
func (r *resource) with(attributes []*keyValue) metric.Tags {
	if len(attributes) == 0 {
		return slices.Clone(r.tags)
	}
	more := make([]string, len(attributes))
	for i, kv := range attributes {
		v := text(kv.GetValue())
		if v == "" {
			v = "n/a" // as Datadog's exporter
		}
		more[i] = kv.GetKey() + ":" + v
	}
	return r.tags.Union(more...)
}

// text writes a value as a tag has it. Lists are JSON.
func text(v *common.AnyValue) string {
	switch is := v.GetValue().(type) {
	case *common.AnyValue_StringValue:
		return is.StringValue
	case *common.AnyValue_BoolValue:
		return strconv.FormatBool(is.BoolValue)
	case *common.AnyValue_IntValue:
		return strconv.FormatInt(is.IntValue, 10)
	case *common.AnyValue_DoubleValue:
		return strconv.FormatFloat(is.DoubleValue, 'g', -1, 64)
	case *common.AnyValue_BytesValue:
		return base64.StdEncoding.EncodeToString(is.BytesValue)
	case nil:
		return ""
	}
	b, err := protojson.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// units maps units of UCUM to Datadog's names of them. Others stay unsaid.
var units = map[string]string{
	"ns": "nanosecond", "us": "microsecond", "ms": "millisecond", "s": "second", "min": "minute", "h": "hour", "d": "day",
	"By": "byte", "kBy": "kilobyte", "MBy": "megabyte", "GBy": "gigabyte", "KiBy": "kibibyte", "MiBy": "mebibyte", "GiBy": "gibibyte",
	"bit": "bit", "%": "percent", "Hz": "hertz", "Cel": "degree celsius", "W": "watt", "J": "joule", "V": "volt", "A": "ampere",
}

// unitOf returns Datadog's name of a unit. Of "{requests}" it is the word.
func unitOf(unit string) string {
	if word, ok := strings.CutPrefix(unit, "{"); ok {
		if word, ok = strings.CutSuffix(word, "}"); ok && len(word) <= 50 {
			return strings.TrimSuffix(word, "s")
		}
		return ""
	}
	return units[unit]
}
