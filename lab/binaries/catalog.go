package binaries

import (
	"fmt"
	"strings"
)

// Group says where a binary's link goes below the directory of links.
type Group string

// The groups keep apart what people call and what only the node calls: the CNI
// plug-in "bridge" must not hide the system's own tool of that name.
const (
	ForPeople Group = ""
	ForNode   Group = "node"
	ForCNI    Group = "cni"
	ForKEDA   Group = "keda"
)

// Binary describes one program and how it is built.
type Binary struct {
	Name    string
	Package string // import path
	Module  string // module whose version it bears; empty means the lab's own
	// Pins is the folder, below the lab's module, of the module that pins it; empty
	// means the lab's own. A program that is pinned apart is built only when it is
	// named: it is no part of a node.
	Pins  string
	Group Group
	CGO   bool   // needs a C compiler
	Tags  string // build tags
	// Stamps returns linker settings (variable=value) for a version; nil means none.
	Stamps func(version string) []string
}

const (
	kubernetes = "k8s.io/kubernetes"
	containerd = "github.com/containerd/containerd/v2"
	cniPlugins = "github.com/containernetworking/plugins"
	keda       = "github.com/kedacore/keda/v2"
	labModule  = "kelpie.dev/kelpie/lab"
)

// Catalog lists every binary of the lab, in the order in which they are built.
func Catalog() []Binary {
	all := []Binary{
		{Name: "lab", Package: labModule + "/cmd/lab"},
		{Name: "pause", Package: labModule + "/cmd/pause", Group: ForNode},
		{Name: "etcd", Package: "go.etcd.io/etcd/server/v3", Module: "go.etcd.io/etcd/server/v3", Group: ForNode},
		{Name: "containerd", Package: containerd + "/cmd/containerd", Module: containerd, Group: ForNode},
		{Name: "containerd-shim-runc-v2", Package: containerd + "/cmd/containerd-shim-runc-v2", Module: containerd, Group: ForNode},
		// Without seccomp every sandbox fails: containerd configures a profile.
		{Name: "runc", Package: "github.com/opencontainers/runc", Module: "github.com/opencontainers/runc", Group: ForNode, CGO: true, Tags: "seccomp"},
	}
	for _, plugin := range []string{"main/bridge", "main/loopback", "meta/portmap", "ipam/host-local"} {
		all = append(all, Binary{
			Name: plugin[strings.IndexByte(plugin, '/')+1:], Package: cniPlugins + "/plugins/" + plugin, Module: cniPlugins, Group: ForCNI,
		})
	}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"} {
		b := Binary{Name: name, Package: kubernetes + "/cmd/" + name, Module: kubernetes, Group: ForNode, Stamps: kubernetesStamps}
		if name == "kubectl" {
			b.Group = ForPeople
		}
		all = append(all, b)
	}
	return append(all,
		Binary{Name: "coredns", Package: "github.com/coredns/coredns", Module: "github.com/coredns/coredns", Group: ForNode},
		Binary{Name: "helm", Package: "helm.sh/helm/v4/cmd/helm", Module: "helm.sh/helm/v4", Stamps: helmStamps},
		Binary{Name: "hey", Package: "github.com/rakyll/hey", Module: "github.com/rakyll/hey"},
		Binary{Name: "keda", Package: keda + "/cmd/operator", Module: keda, Pins: "keda", Group: ForKEDA, Stamps: kedaStamps},
		Binary{Name: "keda-adapter", Package: keda + "/cmd/adapter", Module: keda, Pins: "keda", Group: ForKEDA, Stamps: kedaStamps},
	)
}

// kubernetesStamps puts the version where clients read it: a plain build says
// v0.0.0-master.
func kubernetesStamps(version string) []string {
	const pkg = "k8s.io/component-base/version."
	stamps := []string{pkg + "gitVersion=" + version, pkg + "gitTreeState=clean"}
	var major, minor int
	if _, err := fmt.Sscanf(version, "v%d.%d.", &major, &minor); err == nil {
		stamps = append(stamps, fmt.Sprintf("%sgitMajor=%d", pkg, major), fmt.Sprintf("%sgitMinor=%d", pkg, minor))
	}
	return stamps
}

func kedaStamps(version string) []string {
	return []string{keda + "/version.Version=" + strings.TrimPrefix(version, "v")}
}

func helmStamps(version string) []string {
	return []string{"helm.sh/helm/v4/internal/version.version=" + version}
}
