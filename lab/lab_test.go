// Package lab_test runs the lab as a person does and looks at what is left of it
// on the machine afterwards.
package lab_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/lab/binaries"
	"kelpie.dev/kelpie/lab/host"
	"kelpie.dev/kelpie/lab/node"
)

// bench is one lab under test.
type bench struct {
	t     *testing.T
	state string
	bin   string
}

// TestLab goes through the life of a lab: up, a pod that is reached in every way
// the walkthrough needs, a crash of the two most entangled parts, up again, down,
// nothing left.
func TestLab(t *testing.T) {
	if os.Getenv("KELPIE_LAB_TEST") != "1" {
		t.Skip("starts a real node on this machine: set KELPIE_LAB_TEST=1 as root")
	}
	b := newBench(t)
	b.lab("down") // of a lab that died with another state directory
	before := picture(t)

	out := b.lab("up", "--timeout", "90s")
	if !strings.Contains(out, "node node1 is Ready") {
		t.Fatalf("up does not say that the node is Ready:\n%s", out)
	}
	if out := b.lab("up"); !strings.Contains(out, "already up") {
		t.Errorf("a second up does not say that the lab is up:\n%s", out)
	}
	b.runProbe()
	b.reachProbe()

	status := b.status()
	if !status.Healthy || status.Node != "Ready" {
		t.Errorf("status of a running lab: %+v", status)
	}
	for _, name := range []string{"containerd", "kubelet"} {
		b.kill(status, name)
	}
	if status := b.status(); status.Healthy {
		t.Errorf("status after killing containerd and kubelet: %+v", status)
	}

	if out := b.lab("up", "--timeout", "90s"); !strings.Contains(out, "cleaning up after an earlier run") {
		t.Errorf("up after a crash does not say that it cleans up:\n%s", out)
	}
	b.runProbe()
	b.reachProbe()

	b.diesAndIsBuried()
	if diff := cmp.Diff(before, picture(t)); diff != "" {
		t.Errorf("down leaves something (-before +after):\n%s", diff)
	}
	if left := processesNaming(t, b.state); len(left) > 0 {
		t.Errorf("down leaves processes: %v", left)
	}
	if out := b.lab("down"); !strings.Contains(out, "nothing to do") {
		t.Errorf("a second down does not say that nothing is to do:\n%s", out)
	}
}

// diesAndIsBuried ends every process of the lab, as the end of a login session
// does, and lets a lab with another state directory clean up after it.
func (b *bench) diesAndIsBuried() {
	b.t.Helper()
	group, err := host.NewCgroup(node.Network)
	if err != nil {
		b.t.Fatal(err)
	}
	state, err := os.MkdirTemp("/var/lib", "kelpie-lab-test-")
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(state) }() // holds a lock file only
	down := func() string {
		out, err := exec.Command(filepath.Join(b.bin, "lab"), "down", "--state", state).CombinedOutput()
		if err != nil {
			b.t.Errorf("down of another lab: %v\n%s", err, out)
		}
		return string(out)
	}
	down()
	if status := b.status(); !status.Healthy {
		b.t.Errorf("down with another state directory ended a lab that lives: %+v", status)
	}
	if err := group.Kill(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	if out := down(); !strings.Contains(out, "a lab that has died, with its state in "+b.state) {
		b.t.Errorf("down of another lab does not say that it cleans up after the dead one:\n%s", out)
	}
}

// newBench builds the binaries and makes a short state directory: sockets have
// short paths.
func newBench(t *testing.T) *bench {
	t.Helper()
	state, err := os.MkdirTemp("/var/lib", "kelpie-lab-test-")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, state: state, bin: filepath.Join(state, "bin")}
	cache := os.Getenv("KELPIE_LAB_CACHE")
	if cache == "" {
		cache = "/var/cache/kelpie-lab"
	}
	if err := binaries.Ensure(t.Context(), binaries.Options{Module: ".", Cache: cache, Bin: b.bin, Out: os.Stdout}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.lab("down")
		if err := os.RemoveAll(state); err != nil {
			t.Error(err)
		}
	})
	return b
}

// lab runs the command and fails the test if it fails.
func (b *bench) lab(args ...string) string {
	b.t.Helper()
	start := time.Now()
	out, err := exec.Command(filepath.Join(b.bin, "lab"), append(args, "--state", b.state)...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("lab %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	b.t.Logf("lab %s: %.1f s", args[0], time.Since(start).Seconds())
	return string(out)
}

func (b *bench) status() node.Status {
	b.t.Helper()
	var stdout bytes.Buffer
	cmd := exec.Command(filepath.Join(b.bin, "lab"), "status", "-o", "json", "--state", b.state)
	cmd.Stdout = &stdout
	err := cmd.Run()
	var s node.Status
	if err := json.Unmarshal(stdout.Bytes(), &s); err != nil {
		b.t.Fatalf("status is not JSON: %v\n%s", err, stdout.Bytes())
	}
	if (err == nil) != s.Healthy {
		b.t.Errorf("status ends with %v, healthy is %v", err, s.Healthy)
	}
	return s
}

func (b *bench) kubectl(args ...string) string {
	b.t.Helper()
	cmd := exec.Command(filepath.Join(b.bin, "kubectl"), append([]string{"--kubeconfig", filepath.Join(b.state, "kubeconfig")}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// runProbe builds the probe's image, loads it and waits for the pod.
func (b *bench) runProbe() {
	b.t.Helper()
	dir := b.t.TempDir()
	program, spec, archive := filepath.Join(dir, "probe"), filepath.Join(dir, "image.yaml"), filepath.Join(dir, "probe.tar")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.t.Fatalf("build the probe: %v\n%s", err, out)
	}
	text, err := os.ReadFile("testdata/probe-image.yaml")
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(spec, bytes.ReplaceAll(text, []byte("PROBE"), []byte("probe")), 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.lab("image", "--spec", spec, "-o", archive)
	out := b.lab("load-image", "probe:latest="+archive)
	if !strings.HasPrefix(out, "10.244.0.1:5000/probe:latest") {
		b.t.Errorf("load-image does not say the reference: %s", out)
	}
	b.waitForServiceAccount()
	b.kubectl("apply", "-f", "testdata/probe.yaml")
	b.kubectl("wait", "--for=condition=Ready", "pod/probe", "--timeout=60s")
}

// waitForServiceAccount lets the controller manager catch up: the API server
// refuses pods before it has made the namespace's account.
func (b *bench) waitForServiceAccount() {
	b.t.Helper()
	b.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
}

// reachProbe looks at the pod from the machine and from inside.
func (b *bench) reachProbe() {
	b.t.Helper()
	const service = "http://10.96.7.7"
	for _, want := range []struct{ what, url, answer string }{
		{"ClusterIP from the machine", service + "/", "Hello!\n"},
		{"DNS and ClusterIP from the pod", service + "/fetch?url=http://probe.default/", "Hello!\n"},
		{"UDP host port from a pod", service + "/udp?to=10.244.0.1:9125", "pong ping"},
		{"volume as non-root", service + "/write?file=/data/kept", "uid 65532 wrote /data/kept"},
	} {
		if got := b.get(want.url); got != want.answer {
			b.t.Errorf("%s: got %q, want %q", want.what, got, want.answer)
		}
	}
	conn, err := net.Dial("udp", "10.244.0.1:9125")
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second)) // a UDP socket takes it
	if _, err := conn.Write([]byte("hi")); err != nil {
		b.t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "pong hi" {
		b.t.Errorf("UDP host port from the machine: %q, %v", buf[:n], err)
	}
	b.forwardPort(func(address string) {
		if got := b.get("http://" + address + "/"); got != "Hello!\n" {
			b.t.Errorf("port-forward: got %q", got)
		}
	})
	if got := b.kubectl("exec", "probe", "--", "/probe", "uid"); got != "65532\n" {
		b.t.Errorf("kubectl exec: got %q", got)
	}
}

// forwardPort runs kubectl port-forward to the probe's service while use runs.
func (b *bench) forwardPort(use func(address string)) {
	b.t.Helper()
	cmd := exec.Command(filepath.Join(b.bin, "kubectl"), "--kubeconfig", filepath.Join(b.state, "kubeconfig"), "port-forward", "svc/probe", ":80")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // ends the forwarding
		_ = cmd.Wait()         // by our kill
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	words := strings.Fields(line) // Forwarding from 127.0.0.1:40000 -> 8080
	if err != nil || len(words) < 3 {
		b.t.Fatalf("port-forward says %q, %v", line, err)
	}
	use(words[2])
}

func (b *bench) get(url string) string {
	b.t.Helper()
	// A connection of an earlier lab must not be used again.
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		resp, err := client.Get(url)
		if err != nil {
			last = err
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // only read
		if err != nil {
			last = err
			continue
		}
		if resp.StatusCode == http.StatusOK {
			return string(body)
		}
		return resp.Status + ": " + string(body)
	}
	b.t.Fatalf("get %s: %v", url, last)
	return ""
}

// awaitDeath waits for a killed process to be gone: a signal is sent before its
// many threads have ended.
func (b *bench) awaitDeath(name string, pid int) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return
		}
		if err != nil {
			b.t.Fatalf("look at %s: %v", name, err)
		}
		// The state follows the name, which stands in brackets and may hold some.
		if state := string(stat[bytes.LastIndexByte(stat, ')')+1:]); strings.HasPrefix(state, " Z") || strings.HasPrefix(state, " X") {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s (pid %d) lives 20 s after SIGKILL", name, pid)
		}
	}
}

func (b *bench) kill(s node.Status, name string) {
	b.t.Helper()
	for _, c := range s.Components {
		if c.Name == name && c.Running {
			if err := syscall.Kill(c.PID, syscall.SIGKILL); err != nil {
				b.t.Fatalf("kill %s: %v", name, err)
			}
			b.awaitDeath(name, c.PID)
			return
		}
	}
	b.t.Fatalf("%s does not run: %+v", name, s)
}
