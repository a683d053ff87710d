package origin

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/metric"
)

// rowPod is a pod in which every row of the reference's tables finds something.
const rowPod = `{
  "metadata": {"name": "p", "namespace": "n", "uid": "u",
    "labels": {
      "app.kubernetes.io/name": "name", "app.kubernetes.io/instance": "instance", "app.kubernetes.io/version": "version",
      "app.kubernetes.io/component": "component", "app.kubernetes.io/part-of": "part", "app.kubernetes.io/managed-by": "manager",
      "tags.datadoghq.com/env": "prod", "tags.datadoghq.com/service": "web", "tags.datadoghq.com/version": "1",
      "tags.datadoghq.com/c.service": "own", "rollouts-pod-template-hash": "abc", "kueue.x-k8s.io/queue-name": "queue"},
    "annotations": {
      "autoscaling.datadoghq.com/autoscaler-id": "x", "openshift.io/deployment-config.name": "dc", "openshift.io/deployment.name": "dc-7",
      "kueue.x-k8s.io/workload": "work", "ad.datadoghq.com/tags": "{\"one\":\"1\",\"list\":[\"a\",2,true,1000000],\"+rare\":\"r\",\"number\":3,\"null\":null,\"empty\":\"\"}",
      "ad.datadoghq.com/c.tags": "{\"mine\":\"yes\"}"},
    "ownerReferences": [
      {"kind": "Deployment", "name": "dep"}, {"kind": "ReplicaSet", "name": "rs-7b9f6c8d5x"}, {"kind": "StatefulSet", "name": "set"},
      {"kind": "DaemonSet", "name": "ds"}, {"kind": "ReplicationController", "name": "rc"}, {"kind": "Job", "name": "single"},
      {"kind": "Job", "name": "cron-28571430"}, {"kind": "Custom", "name": "cr"}]},
  "spec": {"nodeName": "node", "priorityClassName": "high", "runtimeClassName": "gvisor",
    "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}],
    "containers": [
      {"name": "c", "image": "r.io:5000/team/app:1.5", "resources": {"limits": {"cpu": "1", "nvidia.com/mig-1g.5gb": "1"}}, "env": [
        {"name": "DD_ENV", "value": "$(STAGE)-eu"}, {"name": "STAGE", "value": "test"}, {"name": "DD_GIT_COMMIT_SHA", "value": "c0ffee"},
        {"name": "DD_GIT_REPOSITORY_URL", "value": "git.example.com/app"}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
      {"name": "otel", "image": "otel@sha256:22", "env": [
        {"name": "OTEL_SERVICE_NAME", "value": "by-name"},
        {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "service.name=by-attribute, service.version = 9 ,deployment.environment=otel-env,bad"}]}],
    "initContainers": [{"name": "init", "image": "busybox"}],
    "ephemeralContainers": [{"name": "debug", "image": "debugger:7"}]},
  "status": {"phase": "Running", "qosClass": "Burstable", "hostIP": "10.0.0.1", "podIP": "10.1.0.1",
    "containerStatuses": [
      {"name": "c", "containerID": "docker://id-c", "imageID": "docker-pullable://r.io:5000/team/app@sha256:11"},
      {"name": "otel", "containerID": "containerd://id-otel", "imageID": "otel@sha256:22"}],
    "initContainerStatuses": [{"name": "init", "containerID": "cri-o://id-init"}],
    "ephemeralContainerStatuses": [{"name": "debug", "containerID": "containerd://id-debug"}]}
}`

func decodePod(t testing.TB, text string) Pod {
	t.Helper()
	var p Pod
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRows holds each row of the reference's tables A3.2 and A3.3: the tag, and
// the level at which it first appears.
func TestRows(t *testing.T) {
	x := newIndex([]Pod{decodePod(t, rowPod)}, &TagOptions{}, &clusterFacts{services: map[string][]string{"n/p": {"svc-a", "svc-b"}}})
	pod, c := Entity{PodUID: "u"}, Entity{ContainerID: "id-c"}
	otel, initial, debug := Entity{ContainerID: "id-otel"}, Entity{ContainerID: "id-init"}, Entity{ContainerID: "id-debug"}
	for _, tt := range []struct {
		entity Entity
		level  Cardinality
		tags   string // separated by spaces; '!' before one that may not be there
	}{
		{pod, Low, "kube_namespace:n pod_phase:running kube_priority_class:high kube_qos:Burstable kube_runtime_class:gvisor"},
		{pod, Low, "kube_ownerref_kind:replicaset kube_ownerref_kind:custom"},
		{pod, Orchestrator, "kube_ownerref_name:rs-7b9f6c8d5x kube_ownerref_name:cr"},
		{pod, Low, "kube_replica_set:rs-7b9f6c8d5x kube_deployment:rs kube_deployment:dep kube_argo_rollout:rs"},
		{pod, Low, "kube_stateful_set:set kube_daemon_set:ds kube_replication_controller:rc persistentvolumeclaim:data"},
		{pod, Low, "kube_job:single kube_cronjob:cron !kube_cronjob:single"},
		{pod, Orchestrator, "kube_job:cron-28571430"},
		{pod, Low, "kube_autoscaler_kind:datadogpodautoscaler kueue_local_queue:queue"},
		{pod, Orchestrator, "kueue_workload:work"},
		{pod, Low, "kube_service:svc-a kube_service:svc-b"},
		{pod, Low, "kube_app_name:name kube_app_instance:instance kube_app_version:version kube_app_component:component kube_app_part_of:part kube_app_managed_by:manager"},
		{pod, Low, "env:prod service:web version:1 gpu_vendor:nvidia oshift_deployment_config:dc"},
		{pod, Orchestrator, "pod_name:p oshift_deployment:dc-7"},
		{pod, Low, "one:1 list:a list:2 list:true list:1000000 !number:3 !empty: !mine:yes"},
		{pod, High, "rare:r !+rare:r"},
		{c, Low, "kube_container_name:c image_name:r.io:5000/team/app short_image:app image_tag:1.5 docker_image:r.io:5000/team/app:1.5"},
		{c, Low, "image_id:r.io:5000/team/app@sha256:11 git.commit.sha:c0ffee git.repository_url:git.example.com/app mine:yes"},
		{c, Low, "service:own !service:web env:$(STAGE)-eu !env:prod version:1"}, // STAGE comes too late, as in Kubernetes
		{c, High, "container_name:c container_id:id-c display_container_name:c_p"},
		{c, Low, "kube_namespace:n kube_service:svc-a one:1 gpu_vendor:nvidia"}, // what is the pod's
		{c, Orchestrator, "pod_name:p"},
		{otel, Low, "service:by-name version:9 env:otel-env image_name:otel !image_tag:latest !docker_image:otel !mine:yes !service:by-attribute"},
		{initial, Low, "kube_container_name:init image_tag:latest service:web"},
		{debug, Low, "kube_container_name:debug image_name:debugger image_tag:7"},
	} {
		levels, exact := x.Lookup(tt.entity)
		if levels == nil || !exact {
			t.Fatalf("%+v is not known", tt.entity)
		}
		for tag := range strings.FieldsSeq(tt.tags) {
			if absent, ok := strings.CutPrefix(tag, "!"); ok {
				if levels.At(High).Has(absent) {
					t.Errorf("%+v has %s", tt.entity, absent)
				}
				continue
			}
			if !levels.At(tt.level).Has(tag) || levels.At(tt.level-1).Has(tag) {
				t.Errorf("%+v: %s does not appear first at level %d; its tags: %s", tt.entity, tag, tt.level, levels.At(High))
			}
		}
	}
}

// TestTagOptions holds the user's rules, and what turns tags off.
func TestTagOptions(t *testing.T) {
	mapped := func(text string) TagMap {
		m, err := ParseTagMap(text)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	facts := &clusterFacts{
		services:   map[string][]string{"n/p": {"svc"}},
		namespaces: map[string]map[string]string{"n": {"Team": "shop;web"}},
	}
	for _, tt := range []struct {
		about  string
		o      TagOptions
		change func(*Pod)
		level  Cardinality
		tags   string
	}{
		{"a label", TagOptions{PodLabels: mapped(`{"app.kubernetes.io/NAME": "app"}`)}, nil, Low, "app:name kube_app_name:name"},
		{"to several tags", TagOptions{PodLabels: mapped(`{"app.kubernetes.io/name": "a, b"}`)}, nil, Low, "a:name b:name"},
		{"of high cardinality", TagOptions{PodLabels: mapped(`{"app.kubernetes.io/name": "+app"}`)}, nil, High, "app:name"},
		{"all, by template", TagOptions{PodLabels: mapped(`{"*": "l_%%label%%"}`)}, nil, Low, "l_app.kubernetes.io/name:name l_rollouts-pod-template-hash:abc"},
		{"some, by pattern", TagOptions{PodLabels: mapped(`{"app.*/?ame": "x%%other%%y"}`)}, nil, Low, "xy:name !xy:instance"},
		{"annotations", TagOptions{PodAnnotations: mapped(`{"openshift.io/*": "%%annotation%%"}`)}, nil, Low, "openshift.io/deployment.name:dc-7"},
		{"env", TagOptions{ContainerEnv: mapped(`{"pod": "pod", "dd_*": "%%env%%"}`)}, nil, Low, "pod:p DD_GIT_COMMIT_SHA:c0ffee"},
		{"namespace", TagOptions{NamespaceLabels: mapped(`{"team": "team"}`)}, nil, Low, "team:shop;web"},
		{"split", TagOptions{NamespaceLabels: mapped(`{"team": "team"}`), Split: map[string]string{"team": ";", "one": ""}}, nil, Low, "team:shop team:web one:1"},
		{"no claims", TagOptions{NoVolumeClaims: true}, nil, Low, "kube_stateful_set:set !persistentvolumeclaim:data"},
		{"no services", TagOptions{NoServices: true}, nil, Low, "!kube_service:svc"},
		{"services", TagOptions{}, nil, Low, "kube_service:svc"},
		{"no services, by the pod", TagOptions{}, func(p *Pod) { p.Metadata.Annotations["tags.datadoghq.com/disable"] = "x,kube_service" }, Low, "!kube_service:svc"},
		{"owners of other names", TagOptions{}, func(p *Pod) {
			p.Metadata.OwnerReferences = []OwnerReference{{"ReplicaSet", "web-1b2"}, {"Job", "nightly"}}
			p.Metadata.Labels["rollouts-pod-template-hash"] = ""
		}, Low, "kube_job:nightly kube_replica_set:web-1b2 !kube_deployment:web !kube_argo_rollout:web !persistentvolumeclaim:data"},
	} {
		p := decodePod(t, rowPod)
		if tt.change != nil {
			tt.change(&p)
		}
		levels, _ := newIndex([]Pod{p}, &tt.o, facts).Lookup(Entity{ContainerID: "id-c"})
		for tag := range strings.FieldsSeq(tt.tags) {
			if absent, ok := strings.CutPrefix(tag, "!"); ok {
				if levels.At(High).Has(absent) {
					t.Errorf("%s: %s is there", tt.about, absent)
				}
			} else if !levels.At(tt.level).Has(tag) || levels.At(tt.level-1).Has(tag) {
				t.Errorf("%s: %s does not appear first at level %d: %s", tt.about, tag, tt.level, levels.At(High))
			}
		}
	}
}

func TestParseTagMaps(t *testing.T) {
	for _, bad := range []string{"[]", `"app"`, `{"a":1}`, "app:kube_app", "{"} {
		if _, err := ParseTagMap(bad); err == nil {
			t.Errorf("ParseTagMap(%q) is no error", bad)
		}
		if _, err := ParseResourceTagMaps(bad); err == nil {
			t.Errorf("ParseResourceTagMaps(%q) is no error", bad)
		}
	}
	if m, err := ParseTagMap(" "); err != nil || !m.Empty() {
		t.Errorf("no map: %v, %v", m, err)
	}
	resources, err := ParseResourceTagMaps(`{"pods.": {"A": "from-resources"}, "nodes": {"zone": "zone"}}`)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := ParseTagMap(`{"a": "x", "b": "y"}`)
	if err != nil {
		t.Fatal(err)
	}
	list := &tagList{}
	pods.Merge(resources["pods"]).addTo(list, map[string]string{"a": "1", "B": "2", "c": "3"})
	if diff := cmp.Diff(metric.NewTags("from-resources:1", "y:2"), list.levels("").At(Low)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	got := NodeTags(map[string]string{"zone": "z", "node-role.kubernetes.io/worker": "", "kubernetes.io/role": "master", "other": "x"}, TagOptions{NodeLabels: resources["nodes"]})
	if want := []string{"kube_node_role:master", "kube_node_role:worker", "zone:z"}; !slices.Equal(got, want) {
		t.Errorf("tags of a node: %q, want %q", got, want)
	}
}

func TestMatchWildcards(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "", true}, {"*", "a/b", true}, {"a*", "a", true}, {"a*c", "abcbc", true}, {"a*c", "abcb", false}, {"*b*", "abc", true},
		{"a?*", "a", false}, {"a?*", "ab", true}, {"**x", "xx", true}, {"*ab*ab", "abxab", true}, {"*ab*ab", "abxa", false},
	} {
		if got := matchWildcards(tt.pattern, tt.s); got != tt.want {
			t.Errorf("matchWildcards(%q, %q) = %t", tt.pattern, tt.s, got)
		}
	}
}

func TestEnviron(t *testing.T) {
	var c Container
	if err := json.Unmarshal([]byte(`{"env": [
		{"name": "A", "value": "a"}, {"name": "B", "value": "$(A)-$(LATER)-$$(A)-$A-$(A"}, {"name": "A", "value": "again $(A)"},
		{"name": "SECRET", "value": "x"}, {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s"}}},
		{"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tags.datadoghq.com/env']"}}},
		{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['none']"}}},
		{"name": "O", "valueFrom": {"fieldRef": {"fieldPath": "spec.other"}}}, {"name": "END", "value": "5$"}]}`), &c); err != nil {
		t.Fatal(err)
	}
	p := decodePod(t, rowPod)
	want := map[string]string{"A": "again a", "B": "a-$(LATER)-$(A)-$A-$(A", "L": "prod", "N": "", "O": "", "END": "5$"}
	if diff := cmp.Diff(want, c.environ(&p)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c.Env = []EnvVar{{Name: "X", Value: strings.Repeat("x", 100)}}
	for range 60 { // each would be twice as long as the one before
		c.Env = append(c.Env, EnvVar{Name: "X", Value: "$(X)$(X)"})
	}
	if got := c.environ(&p)["X"]; len(got) > 2*maxHint {
		t.Errorf("a variable grew to %d bytes", len(got))
	}
}

// TestProblems holds that a mistake in an annotation is told, and costs no
// other tag.
func TestProblems(t *testing.T) {
	x := NewIndex(recorded(t), TagOptions{})
	want := []string{"pod kube-system/etcd-node-1: annotation ad.datadoghq.com/tags: expected a JSON object of strings or lists"}
	if diff := cmp.Diff(want, x.problems); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
