package origin

// PodList is what this package reads of the kubelet's /pods answer.
type PodList struct {
	Items []Pod `json:"items"`
}

// Pod is a pod as the kubelet describes it.
type Pod struct {
	Metadata Metadata  `json:"metadata"`
	Spec     PodSpec   `json:"spec"`
	Status   PodStatus `json:"status"`
}

// Metadata is an object's.
type Metadata struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	UID             string            `json:"uid"`
	Labels          map[string]string `json:"labels"`
	Annotations     map[string]string `json:"annotations"`
	OwnerReferences []OwnerReference  `json:"ownerReferences"`
}

// OwnerReference names an owner of a pod.
type OwnerReference struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// PodSpec is a pod's specification.
type PodSpec struct {
	NodeName          string      `json:"nodeName"`
	PriorityClassName string      `json:"priorityClassName"`
	RuntimeClassName  string      `json:"runtimeClassName"`
	HostNetwork       bool        `json:"hostNetwork"`
	Containers        []Container `json:"containers"`
	InitContainers    []Container `json:"initContainers"`
	Ephemeral         []Container `json:"ephemeralContainers"`
	Volumes           []Volume    `json:"volumes"`
}

// Container is a container's specification.
type Container struct {
	Name      string          `json:"name"`
	Image     string          `json:"image"`
	Env       []EnvVar        `json:"env"`
	Ports     []ContainerPort `json:"ports"`
	Resources Resources       `json:"resources"`
}

// ContainerPort is a port that a container declares.
type ContainerPort struct {
	Name string `json:"name"`
	Port int    `json:"containerPort"`
}

// Resources are quantities by resource name, such as "cpu" and "500m".
type Resources struct {
	Requests map[string]string `json:"requests"`
	Limits   map[string]string `json:"limits"`
}

// EnvVar is an environment variable: a literal value, or a reference to a field
// of the pod. The values of other references are not in the kubelet's answer.
type EnvVar struct {
	Name      string `json:"name"`
	Value     string `json:"value"`
	ValueFrom *struct {
		FieldRef *struct {
			FieldPath string `json:"fieldPath"`
		} `json:"fieldRef"`
	} `json:"valueFrom"`
}

// Volume is read for its claim only.
type Volume struct {
	Claim *struct {
		Name string `json:"claimName"`
	} `json:"persistentVolumeClaim"`
}

// PodStatus is a pod's state.
type PodStatus struct {
	Phase                      string            `json:"phase"`
	QOSClass                   string            `json:"qosClass"`
	HostIP                     string            `json:"hostIP"`
	PodIP                      string            `json:"podIP"`
	PodIPs                     []PodIP           `json:"podIPs"`
	ContainerStatuses          []ContainerStatus `json:"containerStatuses"`
	InitContainerStatuses      []ContainerStatus `json:"initContainerStatuses"`
	EphemeralContainerStatuses []ContainerStatus `json:"ephemeralContainerStatuses"`
}

// PodIP is one of a pod's addresses.
type PodIP struct {
	IP string `json:"ip"`
}

// ContainerStatus ties a container's name to its id, and says how it is.
type ContainerStatus struct {
	Name         string         `json:"name"`
	ContainerID  string         `json:"containerID"` // such as containerd://<id>
	ImageID      string         `json:"imageID"`
	Ready        bool           `json:"ready"`
	RestartCount int            `json:"restartCount"`
	State        ContainerState `json:"state"`
	LastState    ContainerState `json:"lastState"`
}

// ContainerState is one of running, waiting and terminated.
type ContainerState struct {
	Running *struct {
		StartedAt string `json:"startedAt"`
	} `json:"running"`
	Waiting *struct {
		Reason string `json:"reason"`
	} `json:"waiting"`
	Terminated *struct {
		Reason string `json:"reason"`
	} `json:"terminated"`
}
