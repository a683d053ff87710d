package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"
)

//go:embed *.yaml
var files embed.FS

const namespace = "reaction"

// cluster is the one that KUBECONFIG names.
type cluster struct {
	options
	apiKey, appKey string
}

// A system is one way for load to reach an autoscaler.
type system struct {
	name, title string
	manifests   string   // its autoscalers, a template of an app
	values      []string // of the chart, beside values.yaml
	prefix      string   // of its autoscalers' names
	settle      time.Duration
}

// systems in order; the first is what the others are compared with.
var systems = []system{
	{name: "kelpie", title: "Kelpie, values pushed", manifests: "kelpie.yaml", settle: 40 * time.Second},
	{name: "polling", title: "Kelpie, polled every 30 s", manifests: "kelpie.yaml", settle: 75 * time.Second,
		// As upstream's chain: agents flush every 10 s, and the second newest point is read.
		values: []string{"--set-string", "clusterAgent.envDict.KELPIE_VALUE_STREAM=false", "--set-string", "agents.containers.agent.envDict.KELPIE_FAST_LANE_CONTEXTS=0"}},
	{name: "keda", title: "KEDA's Datadog scaler, polling every second", manifests: "keda.yaml", prefix: "keda-hpa-", settle: 40 * time.Second,
		values: []string{"--set-string", "agents.containers.agent.envDict.KELPIE_FAST_LANE_CONTEXTS=0"}},
}

// shell runs line in the repository's root, and returns what it prints.
func (c *cluster) shell(ctx context.Context, line string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-ec", line)
	cmd.Dir = c.root
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.SplitN(line, "\n", 2)[0], err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (c *cluster) install(ctx context.Context) error {
	c.apiKey, c.appKey = key(16), key(20)
	_, err := c.shell(ctx, fmt.Sprintf(`scripts/keda-install.sh %s %s
kubectl create namespace datadog
kubectl create secret generic datadog-secret -n datadog --from-literal api-key=%s --from-literal app-key=%s
kubectl -n keda get secret kedaorg-certs -o jsonpath='{.data.ca\.crt}' | base64 -d | kubectl -n datadog create configmap keda-ca --from-file=ca.crt=/dev/stdin
kubectl create namespace %s
kubectl -n %[5]s create secret generic datadog-keys --from-literal api-key=%[3]s --from-literal app-key=%[4]s`,
		c.registry, c.kedaTag, c.apiKey, c.appKey, namespace))
	if err != nil {
		return err
	}
	return c.upgrade(ctx, nil)
}

// upgrade installs or changes Kelpie, and waits until it runs.
func (c *cluster) upgrade(ctx context.Context, values []string) error {
	text, err := files.ReadFile("values.yaml")
	if err != nil {
		return fmt.Errorf("read values.yaml: %w", err)
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = "'" + v + "'"
	}
	_, err = c.shell(ctx, fmt.Sprintf(`helm upgrade --install datadog-agent charts/kelpie --namespace datadog --values examples/keda/values.yaml --values - \
  --set kelpie.image.repository=%s/kelpie --set kelpie.image.tag=%s %s <<'VALUES'
%s
VALUES
for what in ds/datadog-agent sts/datadog-agent-backend deploy/datadog-cluster-agent; do kubectl rollout status -n datadog $what --timeout=180s; done`,
		c.registry, c.tag, strings.Join(quoted, " "), text))
	return err
}

// apply makes the objects of a file for each app.
func (c *cluster) apply(ctx context.Context, file, verb string) error {
	t, err := template.ParseFS(files, file)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	var text bytes.Buffer
	for i := range c.apps {
		if err := t.Execute(&text, app(i)); err != nil {
			return fmt.Errorf("fill in %s: %w", file, err)
		}
		text.WriteString("\n---\n")
	}
	f, err := os.CreateTemp("", "reaction-*.yaml")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err := f.Write(text.Bytes()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	_, err = c.shell(ctx, "kubectl "+verb+" -f "+filepath.ToSlash(f.Name()))
	return err
}

func app(i int) string { return fmt.Sprintf("app-%d", i) }

// key returns n random bytes in hex.
func key(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: see crypto/rand
	return hex.EncodeToString(b)
}
