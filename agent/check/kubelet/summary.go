package kubelet

import (
	"encoding/json"
	"fmt"

	"kelpie.dev/kelpie/agent/check"
)

// summary is what is read of the kubelet's /stats/summary.
type summary struct {
	Pods []struct {
		Ref struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"podRef"`
		Ephemeral  *fileSystem `json:"ephemeral-storage"`
		Containers []struct {
			Name string      `json:"name"`
			Root *fileSystem `json:"rootfs"`
		} `json:"containers"`
	} `json:"pods"`
}

type fileSystem struct {
	Used     *float64 `json:"usedBytes"`
	Capacity *float64 `json:"capacityBytes"`
}

// storage submits what the pods store on the node. The containers' own file
// systems are told only when cAdvisor does not, as it does not with containerd.
func storage(s *check.Sender, answer []byte, n *node, containers bool) error {
	var sum summary
	if err := json.Unmarshal(answer, &sum); err != nil {
		return fmt.Errorf("decode the kubelet's /stats/summary: %w", err)
	}
	for _, told := range sum.Pods {
		name := podName{told.Ref.Namespace, told.Ref.Name}
		p := n.byName[name]
		if p == nil {
			continue
		}
		if e := told.Ephemeral; e != nil && e.Used != nil {
			s.Gauge("kubernetes.ephemeral_storage.usage", *e.Used, p.orchestrator...)
		}
		if !containers {
			continue
		}
		for _, c := range told.Containers {
			known := n.containers[containerName{name, c.Name}]
			if known == nil || c.Root == nil || c.Root.Used == nil {
				continue
			}
			s.Gauge("kubernetes.filesystem.usage", *c.Root.Used, known.high...)
			if c.Root.Capacity != nil && *c.Root.Capacity > 0 {
				s.Gauge("kubernetes.filesystem.usage_pct", *c.Root.Used / *c.Root.Capacity, known.high...)
			}
		}
	}
	return nil
}
