package node

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"kelpie.dev/kelpie/lab/binaries"
	"kelpie.dev/kelpie/lab/pki"
)

//go:embed templates
var templates embed.FS

// settings is what the templates read.
type settings struct {
	Address, NodeName, Bridge, Network, PodCIDR string
	Config, Data, PKI, Socket, Kubeconfig       string
	NodeBin, CNIBin, Registry, PauseImage       string
	CgroupRoot, ResolvConf                      string
	Upstream                                    bool // there is a name server to ask about the world
	KubeletPort, KubeletHealthPort              int
	ProxyHealthPort, ProxyMetricsPort           int
	Volumes                                     []volume
}

type volume struct{ Name, Path string }

func (l layout) settings(cgroupRoot string) settings {
	resolv, upstream := resolvConf()
	s := settings{
		Address: address, NodeName: NodeName, Bridge: Bridge, Network: Network, PodCIDR: podCIDR,
		Config: l.config(), Data: l.data(), PKI: l.pki(), Socket: l.socket(), Kubeconfig: l.kubeconfig(),
		NodeBin: filepath.Join(l.bin, string(binaries.ForNode)), CNIBin: filepath.Join(l.bin, string(binaries.ForCNI)),
		Registry: RegistryHost, PauseImage: pauseImage(),
		CgroupRoot: cgroupRoot, ResolvConf: resolv, Upstream: upstream,
		KubeletPort: kubeletPort, KubeletHealthPort: kubeletHealthPort,
		ProxyHealthPort: proxyHealthPort, ProxyMetricsPort: proxyMetricsPort,
	}
	for i := 1; i <= volumes; i++ {
		name := fmt.Sprintf("lab-%02d", i)
		s.Volumes = append(s.Volumes, volume{Name: name, Path: filepath.Join(l.data(), "volumes", name)})
	}
	return s
}

// resolvConf returns the file that names real name servers and whether it does.
// systemd-resolved's stub listens on an address that pods do not have.
func resolvConf() (string, bool) {
	for _, path := range []string{"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"} {
		data, err := os.ReadFile(path)
		if err == nil {
			return path, hasNameserver(string(data))
		}
	}
	return "", false
}

func hasNameserver(conf string) bool {
	for line := range strings.Lines(conf) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "nameserver" {
			return true
		}
	}
	return false
}

// configure writes certificates and every component's configuration.
func (l layout) configure(cgroupRoot string, now time.Time) error {
	s := l.settings(cgroupRoot)
	for _, dir := range []string{
		filepath.Join(l.config(), "cni"), filepath.Join(l.config(), "certs.d", RegistryHost), l.pki(),
		filepath.Join(l.data(), "registry"), filepath.Join(l.data(), "volume-plugins"),
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the lab's directories: %w", err)
		}
	}
	for _, v := range s.Volumes {
		if err := makeVolume(v.Path); err != nil {
			return err
		}
	}
	if err := l.certify(now); err != nil {
		return err
	}
	for template, path := range map[string]string{
		"containerd.toml": "containerd.toml",
		"hosts.toml":      filepath.Join("certs.d", RegistryHost, "hosts.toml"),
		"lab.conflist":    filepath.Join("cni", "10-lab.conflist"),
		"kubelet.yaml":    "kubelet.yaml",
		"proxy.yaml":      "proxy.yaml",
		"Corefile":        "Corefile",
		"volumes.yaml":    "volumes.yaml",
	} {
		if err := render(template, s, filepath.Join(l.config(), path), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeVolume makes a directory that any user may write to, as pods run as any.
func makeVolume(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make a volume: %w", err)
	}
	if err := os.Chmod(path, 0o777); err != nil { // past the umask
		return fmt.Errorf("open a volume to all users: %w", err)
	}
	return nil
}

// identity is a certificate and, for a client of the API server, where its
// kubeconfig goes.
type identity struct {
	file       string
	request    pki.Request
	kubeconfig string
}

func (l layout) identities() []identity {
	loopback, node := net.IPv4(127, 0, 0, 1), net.ParseIP(address)
	inConfig := func(name string) string { return filepath.Join(l.config(), name+".kubeconfig") }
	return []identity{
		{file: "apiserver", request: pki.Request{
			CommonName: "kube-apiserver",
			DNSNames:   []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			IPs:        []net.IP{loopback, node, net.ParseIP(apiService)},
		}},
		{file: "kubelet", request: pki.Request{CommonName: "system:node:" + NodeName, Organizations: []string{"system:nodes"},
			DNSNames: []string{NodeName}, IPs: []net.IP{node}}, kubeconfig: inConfig("kubelet")},
		{file: "admin", request: pki.Request{CommonName: "admin", Organizations: []string{"system:masters"}}, kubeconfig: l.kubeconfig()},
		{file: "controller-manager", request: pki.Request{CommonName: "system:kube-controller-manager"}, kubeconfig: inConfig("controller-manager")},
		{file: "scheduler", request: pki.Request{CommonName: "system:kube-scheduler"}, kubeconfig: inConfig("scheduler")},
		{file: "kube-proxy", request: pki.Request{CommonName: "system:kube-proxy"}, kubeconfig: inConfig("kube-proxy")},
		{file: "kubelet-client", request: pki.Request{CommonName: "apiserver-kubelet-client", Organizations: []string{"system:masters"}}},
	}
}

func (l layout) certify(now time.Time) error {
	ca, err := pki.NewAuthority("kelpie-lab", now)
	if err != nil {
		return err
	}
	if err := writeSecret(l.cert("ca"), ca.CertPEM()); err != nil {
		return err
	}
	for _, id := range l.identities() {
		pair, err := ca.Issue(id.request)
		if err != nil {
			return err
		}
		if err := l.keep(id.file, pair); err != nil {
			return err
		}
		if id.kubeconfig == "" {
			continue
		}
		if err := writeKubeconfig(id.kubeconfig, id.file, ca.CertPEM(), pair); err != nil {
			return err
		}
	}
	if err := l.certifyFrontProxy(now); err != nil {
		return err
	}
	signing, err := pki.NewSigningKey()
	if err != nil {
		return err
	}
	return l.keep("service-accounts", signing)
}

// certifyFrontProxy uses an authority of its own: whoever it signs for may claim
// to be any user towards an aggregated API server.
func (l layout) certifyFrontProxy(now time.Time) error {
	ca, err := pki.NewAuthority("kelpie-lab-front-proxy", now)
	if err != nil {
		return err
	}
	if err := writeSecret(l.cert("front-proxy-ca"), ca.CertPEM()); err != nil {
		return err
	}
	pair, err := ca.Issue(pki.Request{CommonName: "front-proxy"})
	if err != nil {
		return err
	}
	return l.keep("front-proxy", pair)
}

func (l layout) keep(name string, pair pki.KeyPair) error {
	if err := writeSecret(l.cert(name), pair.Cert); err != nil {
		return err
	}
	return writeSecret(l.key(name), pair.Key)
}

func writeKubeconfig(path, user string, ca []byte, pair pki.KeyPair) error {
	encode := base64.StdEncoding.EncodeToString
	return render("kubeconfig", map[string]string{
		"Server": apiserverURL(), "User": user, "CA": encode(ca), "Cert": encode(pair.Cert), "Key": encode(pair.Key),
	}, path, 0o600)
}

func apiserverURL() string { return fmt.Sprintf("https://%s:%d", address, apiserverPort) }

func writeSecret(path string, data []byte) error {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	return nil
}

func render(name string, values any, path string, mode os.FileMode) error {
	t, err := template.New(name).Option("missingkey=error").ParseFS(templates, "templates/"+name)
	if err != nil {
		return fmt.Errorf("read template %s: %w", name, err)
	}
	var out bytes.Buffer
	if err := t.ExecuteTemplate(&out, name, values); err != nil {
		return fmt.Errorf("fill template %s: %w", name, err)
	}
	if err := os.WriteFile(path, out.Bytes(), mode); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}
