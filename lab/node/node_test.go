package node

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

func TestReadyIn(t *testing.T) {
	for name, tc := range map[string]struct{ node, want string }{
		"ready":        {`{"status":{"conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":"True"}]}}`, ""},
		"not ready":    {`{"status":{"conditions":[{"type":"Ready","status":"False","message":"no network"}]}}`, "not ready: no network"},
		"still marked": {`{"spec":{"taints":[{"key":"node.kubernetes.io/not-ready"}]},"status":{"conditions":[{"type":"Ready","status":"True"}]}}`, "marked not ready"},
		"silent":       {`{}`, "has not reported"},
		"no JSON":      {`<html>`, "read node node1"},
	} {
		err := readyIn([]byte(tc.node))
		if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func TestConfigureWritesEveryFileWhole(t *testing.T) {
	l := layout{state: t.TempDir(), bin: "/lab/bin"}
	if err := l.configure("/kelpie-lab", time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"config/kubelet.yaml", "config/proxy.yaml", "config/volumes.yaml", "kubeconfig", "config/kubelet.kubeconfig"} {
		data, err := os.ReadFile(l.at(file))
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range strings.Split(string(data), "\n---\n") {
			var parsed map[string]any
			if err := yaml.UnmarshalStrict([]byte(document), &parsed); err != nil || parsed["kind"] == nil {
				t.Errorf("%s is not a whole document: %v\n%s", file, err, document)
			}
		}
	}
	info, err := os.Stat(l.kubeconfig())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the administrator's kubeconfig: %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(l.data(), "volumes", "lab-01")); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("a volume: %v, %v", info, err)
	}
}

// The node agent verifies the kubelet with the cluster's authority, by address
// and by name.
func TestKubeletCertificateNamesTheNode(t *testing.T) {
	l := layout{state: t.TempDir(), bin: "/lab/bin"}
	if err := l.configure("/kelpie-lab", time.Now()); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(l.cert("ca"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(l.cert("kubelet"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	block, _ := pem.Decode(data)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node1", "10.244.0.1"} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestComponentsUseTheStateOnly(t *testing.T) {
	l := layout{state: "/lab/state", bin: "/lab/bin"}
	seen := map[string]bool{}
	for _, c := range l.components() {
		if seen[c.name] {
			t.Errorf("%s is there twice", c.name)
		}
		seen[c.name] = true
		for _, arg := range c.args {
			if _, path, ok := strings.Cut(arg, "=/"); ok && !strings.HasPrefix("/"+path, "/lab/") {
				t.Errorf("%s writes or reads outside the state directory: %s", c.name, arg)
			}
		}
	}
}

func TestHasNameserver(t *testing.T) {
	for conf, want := range map[string]bool{"nameserver 192.0.2.1\n": true, "search a\n": false, "# nameserver 192.0.2.1\n": false, "": false, "nameserver\n": false} {
		if got := hasNameserver(conf); got != want {
			t.Errorf("%q: got %v, want %v", conf, got, want)
		}
	}
}

func TestWatchNoticesTheDead(t *testing.T) {
	log := filepath.Join(t.TempDir(), "etcd.log")
	if err := os.WriteFile(log, []byte("starting\nno space left\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w := &watch{logs: func(string) string { return log }}
	ended := make(chan struct{})
	close(ended)
	w.add("etcd", ended)
	err := w.until(t.Context(), "etcd answers", answers("127.0.0.1:1"))
	if err == nil || !strings.Contains(err.Error(), "etcd ended right after its start") || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("error = %v", err)
	}
}

func TestNewRefusesBadStateDirectories(t *testing.T) {
	if err := Supported(); err != nil {
		t.Skipf("the lab cannot run here: %v", err)
	}
	for _, state := range []string{"relative", filepath.Join(t.TempDir(), strings.Repeat("x", maxState)), filepath.Join(t.TempDir(), "with blank")} {
		if _, err := New(Options{State: state}); err == nil {
			t.Errorf("%q is accepted", state)
		}
	}
	n, err := New(Options{State: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := n.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := n.lock(); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a second lock: %v", err)
	}
}
