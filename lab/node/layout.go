package node

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"kelpie.dev/kelpie/lab/binaries"
	"kelpie.dev/kelpie/lab/host"
)

// What the node is called and where it is reached. The address is the bridge's,
// so nothing but pods' host ports can be reached from another machine.
const (
	NodeName    = "node1"
	Bridge      = "kelpie0"
	Network     = "kelpie-lab" // of the CNI configuration; and the control group
	address     = "10.244.0.1"
	podCIDR     = "10.244.0.0/24"
	serviceCIDR = "10.96.0.0/16"
	apiService  = "10.96.0.1"
	volumes     = 16
)

// Ports are not the usual ones where the usual ones are likely to be taken. The
// kubelet's is: clients expect it.
const (
	apiserverPort     = 26443
	etcdPort          = 22379
	etcdPeerPort      = 22380
	controllerPort    = 20257
	schedulerPort     = 20259
	kubeletPort       = 10250
	kubeletHealthPort = 20248
	proxyHealthPort   = 20256
	proxyMetricsPort  = 20249
	registryPort      = 5000
	dnsPort           = 53
)

// RegistryHost is the host and port of the lab's registry, as pods and the
// machine itself name it.
var RegistryHost = fmt.Sprintf("%s:%d", address, registryPort)

// layout knows where things are below the state directory.
type layout struct {
	state string
	bin   string
}

func (l layout) at(parts ...string) string {
	return filepath.Join(append([]string{l.state}, parts...)...)
}

func (l layout) data() string       { return l.at("data") }
func (l layout) config() string     { return l.at("config") }
func (l layout) pki() string        { return l.at("pki") }
func (l layout) logs() string       { return l.at("logs") }
func (l layout) records() string    { return l.at("run") }
func (l layout) before() string     { return l.at("before.json") }
func (l layout) kubeconfig() string { return l.at("kubeconfig") }
func (l layout) socket() string     { return l.at("data", "containerd.sock") }

func (l layout) cert(name string) string { return filepath.Join(l.pki(), name+".crt") }
func (l layout) key(name string) string  { return filepath.Join(l.pki(), name+".key") }

func (l layout) nodeBin(name string) string {
	return binaries.Path(l.bin, binaries.ForNode, name)
}

func (l layout) tool(name string) string {
	return binaries.Path(l.bin, binaries.ForPeople, name)
}

// ports lists what must be free before anything starts.
func ports() []host.Port {
	at := func(network, ip string, port uint16, who string) host.Port {
		return host.Port{Network: network, Address: netip.AddrPortFrom(netip.MustParseAddr(ip), port), For: who}
	}
	return []host.Port{
		at("tcp", "127.0.0.1", etcdPort, "etcd"),
		at("tcp", "127.0.0.1", etcdPeerPort, "etcd"),
		at("tcp", address, apiserverPort, "kube-apiserver"),
		at("tcp", "127.0.0.1", controllerPort, "kube-controller-manager"),
		at("tcp", "127.0.0.1", schedulerPort, "kube-scheduler"),
		at("tcp", address, kubeletPort, "kubelet"),
		at("tcp", "127.0.0.1", kubeletHealthPort, "kubelet"),
		at("tcp", "127.0.0.1", proxyHealthPort, "kube-proxy"),
		at("tcp", "127.0.0.1", proxyMetricsPort, "kube-proxy"),
		at("tcp", address, registryPort, "the image registry"),
		at("tcp", address, dnsPort, "coredns"),
		at("udp", address, dnsPort, "coredns"),
	}
}
