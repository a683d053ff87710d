package origin

import "strings"

// ownerTags adds what an owner's name tells about the workload.
func ownerTags(t *tagList, o OwnerReference, p *Pod, claims bool) {
	t.add(Low, "kube_ownerref_kind", strings.ToLower(o.Kind))
	t.add(Orchestrator, "kube_ownerref_name", o.Name)
	switch o.Kind {
	case "Deployment":
		t.add(Low, "kube_deployment", o.Name)
	case "ReplicaSet":
		t.add(Low, "kube_replica_set", o.Name)
		deployment := deploymentOf(o.Name)
		t.add(Low, "kube_deployment", deployment)
		if p.Metadata.Labels["rollouts-pod-template-hash"] != "" {
			t.add(Low, "kube_argo_rollout", deployment)
		}
	case "StatefulSet":
		t.add(Low, "kube_stateful_set", o.Name)
		if claims {
			for _, v := range p.Spec.Volumes {
				if v.Claim != nil {
					t.add(Low, "persistentvolumeclaim", v.Claim.Name)
				}
			}
		}
	case "DaemonSet":
		t.add(Low, "kube_daemon_set", o.Name)
	case "ReplicationController":
		t.add(Low, "kube_replication_controller", o.Name)
	case "Job":
		if cronJob := cronJobOf(o.Name); cronJob != "" {
			t.add(Low, "kube_cronjob", cronJob)
			t.add(Orchestrator, "kube_job", o.Name)
		} else {
			t.add(Low, "kube_job", o.Name)
		}
	}
}

// The characters that Kubernetes makes random name suffixes from.
const (
	digits        = "0123456789"
	safeSuffixSet = "bcdfghjklmnpqrstvwxz2456789"
)

// deploymentOf returns the Deployment that a ReplicaSet's name comes from, or
// "" when the name was not made by one.
func deploymentOf(replicaSet string) string {
	name, suffix := cutSuffix(replicaSet)
	if len(suffix) >= 3 && (only(suffix, digits) || only(suffix, safeSuffixSet)) {
		return name
	}
	return ""
}

// cronJobOf returns the CronJob that a Job's name comes from, or "".
func cronJobOf(job string) string {
	name, suffix := cutSuffix(job)
	if len(suffix) >= 3 && only(suffix, digits) {
		return name
	}
	return ""
}

func cutSuffix(name string) (before, suffix string) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return name, ""
	}
	return name[:i], name[i+1:]
}

func only(s, set string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(set, r) })
}

// gpuVendor returns who makes the GPU that an extended resource stands for.
func gpuVendor(resource string) string {
	switch {
	case resource == "nvidia.com/gpu", strings.HasPrefix(resource, "nvidia.com/mig-"):
		return "nvidia"
	case resource == "amd.com/gpu":
		return "amd"
	case resource == "gpu.intel.com/xe", resource == "gpu.intel.com/i915":
		return "intel"
	default:
		return ""
	}
}

func gpuTags(t *tagList, r Resources) {
	for _, quantities := range []map[string]string{r.Requests, r.Limits} {
		for resource := range quantities {
			t.add(Low, "gpu_vendor", gpuVendor(resource))
		}
	}
}

// splitImage cuts an image reference into its name, its last path element and
// its tag, "latest" when it names neither a tag nor a digest.
func splitImage(image string) (name, short, tag string) {
	if image == "" {
		return "", "", ""
	}
	name, digest, _ := strings.Cut(image, "@")
	slash := strings.LastIndexByte(name, '/')
	if colon := strings.LastIndexByte(name, ':'); colon > slash {
		name, tag = name[:colon], name[colon+1:]
	} else if digest == "" {
		tag = "latest"
	}
	return name, name[slash+1:], tag
}
