package origin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// standard are the unified service tags, which a container may override.
var standard = [...]struct{ tag, env string }{{"env", "DD_ENV"}, {"service", "DD_SERVICE"}, {"version", "DD_VERSION"}}

const standardLabel = "tags.datadoghq.com/"

// labelTags are the pod labels that always make a tag.
var labelTags = [...]struct{ label, tag string }{
	{"app.kubernetes.io/name", "kube_app_name"},
	{"app.kubernetes.io/instance", "kube_app_instance"},
	{"app.kubernetes.io/version", "kube_app_version"},
	{"app.kubernetes.io/component", "kube_app_component"},
	{"app.kubernetes.io/part-of", "kube_app_part_of"},
	{"app.kubernetes.io/managed-by", "kube_app_managed_by"},
	{"kueue.x-k8s.io/queue-name", "kueue_local_queue"},
}

// builder makes the tags of pods and their containers. Rules: reference
// metrics-pipeline A3.2 and A3.3.
type builder struct {
	o        *TagOptions
	facts    *clusterFacts
	problems []string
}

// maxProblems bounds what a builder reports: one mistake is often in many pods.
const maxProblems = 20

// pod returns the tags of a pod but for the unified service tags, which differ
// by container.
func (b *builder) pod(p *Pod) *tagList {
	t := &tagList{split: b.o.Split}
	t.add(Low, "kube_namespace", p.Metadata.Namespace)
	t.add(Orchestrator, "pod_name", p.Metadata.Name)
	t.add(Low, "pod_phase", strings.ToLower(p.Status.Phase))
	t.add(Low, "kube_qos", p.Status.QOSClass)
	t.add(Low, "kube_priority_class", p.Spec.PriorityClassName)
	t.add(Low, "kube_runtime_class", p.Spec.RuntimeClassName)
	for _, l := range labelTags {
		t.add(Low, l.tag, p.Metadata.Labels[l.label])
	}
	for _, o := range p.Metadata.OwnerReferences {
		ownerTags(t, o, p, !b.o.NoVolumeClaims)
	}
	for _, c := range p.Spec.Containers {
		gpuTags(t, c.Resources)
	}
	notes := p.Metadata.Annotations
	if notes["autoscaling.datadoghq.com/autoscaler-id"] != "" {
		t.add(Low, "kube_autoscaler_kind", "datadogpodautoscaler")
	}
	t.add(Orchestrator, "kueue_workload", notes["kueue.x-k8s.io/workload"])
	t.add(Low, "oshift_deployment_config", notes["openshift.io/deployment-config.name"])
	t.add(Orchestrator, "oshift_deployment", notes["openshift.io/deployment.name"])
	b.o.PodLabels.addTo(t, p.Metadata.Labels)
	b.o.PodAnnotations.addTo(t, notes)
	if b.facts != nil {
		b.o.NamespaceLabels.addTo(t, b.facts.namespaces[p.Metadata.Namespace])
		if !b.o.NoServices && !slices.Contains(strings.Split(notes["tags.datadoghq.com/disable"], ","), "kube_service") {
			for _, service := range b.facts.services[p.Name()] {
				t.add(Low, "kube_service", service)
			}
		}
	}
	b.annotation(t, p, "ad.datadoghq.com/tags")
	return t
}

// podOnly completes pod's tags for samples of the pod as a whole.
func (b *builder) podOnly(t *tagList, p *Pod) *Levels {
	for _, s := range standard {
		t.add(Low, s.tag, p.Metadata.Labels[standardLabel+s.tag])
	}
	return t.levels(p.Name())
}

// container returns a container's tags, given its pod's.
func (b *builder) container(pod *tagList, p *Pod, status *ContainerStatus) *Levels {
	t := pod.clone()
	spec, id := p.container(status.Name), containerID(status.ContainerID)
	t.add(Low, "kube_container_name", status.Name)
	name, short, tag := splitImage(spec.Image)
	t.add(Low, "image_name", name)
	t.add(Low, "short_image", short)
	t.add(Low, "image_tag", tag)
	if strings.HasPrefix(status.ContainerID, "docker://") {
		t.add(Low, "docker_image", strings.TrimSuffix(name+":"+tag, ":"))
	}
	t.add(Low, "image_id", imageID(status.ImageID))
	gpuTags(t, spec.Resources)

	env := spec.environ(p)
	own := serviceTagsOf(env)
	for _, s := range standard {
		t.add(Low, s.tag, firstOf(p.Metadata.Labels[standardLabel+status.Name+"."+s.tag], own[s.tag], p.Metadata.Labels[standardLabel+s.tag]))
	}
	t.add(Low, "git.commit.sha", env["DD_GIT_COMMIT_SHA"])
	t.add(Low, "git.repository_url", env["DD_GIT_REPOSITORY_URL"])
	b.o.ContainerEnv.addTo(t, env)
	b.annotation(t, p, "ad.datadoghq.com/"+status.Name+".tags")
	t.add(High, "container_id", id)
	t.add(High, "container_name", status.Name)
	t.add(High, "display_container_name", status.Name+"_"+p.Metadata.Name)
	return t.levels(p.Name())
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// annotation adds the tags that a user wrote into an annotation: a JSON object
// of strings or lists. A key that starts with '+' is high.
func (b *builder) annotation(t *tagList, p *Pod, key string) {
	text, ok := p.Metadata.Annotations[key]
	if !ok {
		return
	}
	object, err := annotationTags(text)
	if err != nil { // the pod's owner made a mistake; the pod's other tags stand
		if len(b.problems) < maxProblems {
			b.problems = append(b.problems, fmt.Sprintf("pod %s: annotation %s: expected a JSON object of strings or lists", p.Name(), key))
		}
		return
	}
	for name, values := range object {
		for _, value := range values {
			t.addUser(name, value)
		}
	}
}

// annotationTags reads {"name": "value", "list": ["a", 2, true]}. Other values
// make no tag.
func annotationTags(text string) (map[string][]string, error) {
	var object map[string]any
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber() // as it is written, not as 1e+06
	if err := d.Decode(&object); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the object")
	}
	out := make(map[string][]string, len(object))
	for name, value := range object {
		switch v := value.(type) {
		case string:
			out[name] = []string{v}
		case []any:
			for _, item := range v {
				switch item.(type) {
				case string, json.Number, bool:
					out[name] = append(out[name], fmt.Sprint(item))
				}
			}
		}
	}
	return out, nil
}

// Name returns "namespace/name".
func (p *Pod) Name() string { return p.Metadata.Namespace + "/" + p.Metadata.Name }

func (p *Pod) container(name string) *Container {
	for _, list := range [][]Container{p.Spec.Containers, p.Spec.InitContainers, p.Spec.Ephemeral} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return &Container{}
}

// containerID strips the runtime: containerd://<id> is <id>.
func containerID(id string) string {
	if _, bare, ok := strings.Cut(id, "://"); ok {
		return bare
	}
	return id
}

// imageID strips what Docker's shim puts before an image's digest.
func imageID(id string) string {
	return strings.TrimPrefix(strings.TrimPrefix(id, "docker-pullable://"), "docker://")
}
