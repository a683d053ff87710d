package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"kelpie.dev/kelpie/lab/binaries"
	"kelpie.dev/kelpie/lab/process"
)

// stage says what must be there before a component starts.
type stage int

const (
	first    stage = iota // needs the network only
	afterAPI              // needs the API server to answer
)

type component struct {
	name  string
	stage stage
	args  []string
	env   []string // beyond the common environment
}

// components is the parts list of the node.
func (l layout) components() []component {
	return []component{
		{name: "etcd", args: l.etcd()},
		{name: "kube-apiserver", args: l.apiserver()},
		{name: "registry", args: []string{l.tool("lab"), "registry", "--listen", RegistryHost, "--dir", filepath.Join(l.data(), "registry")}},
		{name: "containerd", args: []string{l.nodeBin("containerd"), "--config", filepath.Join(l.config(), "containerd.toml")}, env: proxyEnv()},
		{name: "kube-controller-manager", stage: afterAPI, args: l.controllerManager()},
		{name: "kube-scheduler", stage: afterAPI, args: l.scheduler()},
		{name: "kubelet", stage: afterAPI, args: l.kubelet()},
		{name: "kube-proxy", stage: afterAPI, args: []string{l.nodeBin("kube-proxy"), "--config=" + filepath.Join(l.config(), "proxy.yaml")}},
		{name: "coredns", stage: afterAPI, args: []string{l.nodeBin("coredns"), "-conf", filepath.Join(l.config(), "Corefile")}},
	}
}

func (l layout) etcd() []string {
	client, peer := "http://127.0.0.1:"+strconv.Itoa(etcdPort), "http://127.0.0.1:"+strconv.Itoa(etcdPeerPort)
	return []string{
		l.nodeBin("etcd"),
		"--name=lab",
		"--data-dir=" + filepath.Join(l.data(), "etcd"),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=lab=" + peer,
		"--unsafe-no-fsync", // the cluster does not outlive the machine's crash anyway
		"--log-level=warn",
	}
}

func (l layout) apiserver() []string {
	return []string{
		l.nodeBin("kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:" + strconv.Itoa(etcdPort),
		"--bind-address=" + address,
		"--advertise-address=" + address,
		"--secure-port=" + strconv.Itoa(apiserverPort),
		"--tls-cert-file=" + l.cert("apiserver"),
		"--tls-private-key-file=" + l.key("apiserver"),
		"--client-ca-file=" + l.cert("ca"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--service-cluster-ip-range=" + serviceCIDR,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + l.cert("service-accounts"),
		"--service-account-signing-key-file=" + l.key("service-accounts"),
		"--kubelet-certificate-authority=" + l.cert("ca"),
		"--kubelet-client-certificate=" + l.cert("kubelet-client"),
		"--kubelet-client-key=" + l.key("kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP", // no name server knows node1
		"--requestheader-client-ca-file=" + l.cert("front-proxy-ca"),
		"--requestheader-allowed-names=front-proxy",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + l.cert("front-proxy"),
		"--proxy-client-key-file=" + l.key("front-proxy"),
		"--enable-aggregator-routing=true",
		"--endpoint-reconciler-type=master-count",
	}
}

func (l layout) controllerManager() []string {
	kubeconfig := filepath.Join(l.config(), "controller-manager.kubeconfig")
	return []string{
		l.nodeBin("kube-controller-manager"),
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(controllerPort),
		"--leader-elect=false",
		"--use-service-account-credentials",
		"--service-account-private-key-file=" + l.key("service-accounts"),
		"--root-ca-file=" + l.cert("ca"),
		// Short, so that an unchanged HPA is seen to scale down.
		"--horizontal-pod-autoscaler-downscale-stabilization=20s",
	}
}

func (l layout) scheduler() []string {
	kubeconfig := filepath.Join(l.config(), "scheduler.kubeconfig")
	return []string{
		l.nodeBin("kube-scheduler"),
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(schedulerPort),
		"--leader-elect=false",
	}
}

func (l layout) kubelet() []string {
	return []string{
		l.nodeBin("kubelet"),
		"--config=" + filepath.Join(l.config(), "kubelet.yaml"),
		"--kubeconfig=" + filepath.Join(l.config(), "kubelet.kubeconfig"),
		"--root-dir=" + filepath.Join(l.data(), "kubelet"),
		"--cert-dir=" + filepath.Join(l.data(), "kubelet", "pki"),
		"--hostname-override=" + NodeName,
		"--node-ip=" + address,
	}
}

// command turns a component into what the process table starts. The environment
// is bare: a proxy meant for people must not come between the components.
func (l layout) command(c component) process.Command {
	path := strings.Join([]string{
		filepath.Join(l.bin, string(binaries.ForNode)), filepath.Join(l.bin, string(binaries.ForCNI)),
		"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}, ":")
	return process.Command{
		Name: c.name,
		Args: c.args,
		Env:  append([]string{"PATH=" + path, "HOME=" + l.data()}, c.env...),
		Dir:  l.state,
		Log:  l.log(c.name),
	}
}

func (l layout) log(name string) string { return filepath.Join(l.logs(), name+".log") }

// proxyEnv lets containerd pull public images the way the machine's user does.
func proxyEnv() []string {
	env := []string{fmt.Sprintf("NO_PROXY=%s,%s,localhost,127.0.0.1", podCIDR, serviceCIDR)}
	for _, key := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if value := os.Getenv(key); value != "" {
			env = append(env, key+"="+value)
		}
	}
	return env
}
