package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// apiserver asks the cluster as kubectl's user, through kubectl's proxy.
type apiserver struct {
	url string
	cmd *exec.Cmd
}

var listening = regexp.MustCompile(`127\.0\.0\.1:\d+`)

func (c *cluster) proxy(ctx context.Context) (*apiserver, error) {
	cmd := exec.CommandContext(ctx, "kubectl", "proxy", "--port=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("kubectl proxy: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("kubectl proxy: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	at := listening.FindString(line)
	if err != nil || at == "" {
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("kubectl proxy says %q: %w", line, errors.Join(err, cmd.Wait()))
	}
	return &apiserver{url: "http://" + at, cmd: cmd}, nil
}

func (a *apiserver) close() {
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait() // killed
}

func (a *apiserver) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err // names the request
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: status %d: %.300s", path, resp.StatusCode, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	return nil
}

// reads are the paths of an autoscaler's two metrics.
type reads struct{ requests, clock string }

// metricsOf finds what an autoscaler reads in its own spec.
func (a *apiserver) metricsOf(ctx context.Context, hpa string) (reads, error) {
	var h struct {
		Spec struct {
			Metrics []struct {
				External struct {
					Metric struct {
						Name     string
						Selector struct{ MatchLabels map[string]string }
					}
				}
			}
		}
	}
	if err := a.get(ctx, "/apis/autoscaling/v2/namespaces/"+namespace+"/horizontalpodautoscalers/"+hpa, &h); err != nil {
		return reads{}, err
	}
	var r reads
	for _, m := range h.Spec.Metrics {
		path := "/apis/external.metrics.k8s.io/v1beta1/namespaces/" + namespace + "/" + m.External.Metric.Name
		var labels []string
		for k, v := range m.External.Metric.Selector.MatchLabels {
			labels = append(labels, k+"="+v)
		}
		if len(labels) > 0 {
			path += "?" + url.Values{"labelSelector": {strings.Join(labels, ",")}}.Encode()
		}
		if strings.Contains(m.External.Metric.Name, "clock") {
			r.clock = path
		} else {
			r.requests = path
		}
	}
	if r.requests == "" || r.clock == "" {
		return r, fmt.Errorf("autoscaler %s has not both metrics yet", hpa)
	}
	return r, nil
}

// value reads a metric as an autoscaler's controller does.
func (a *apiserver) value(ctx context.Context, path string) (float64, error) {
	var list struct{ Items []struct{ Value string } }
	if err := a.get(ctx, path, &list); err != nil {
		return 0, err
	}
	if len(list.Items) != 1 {
		return 0, fmt.Errorf("get %s: %d items", path, len(list.Items))
	}
	return quantity(list.Items[0].Value)
}

// quantity reads Kubernetes' form of a number, as far as metrics come in it.
func quantity(text string) (float64, error) {
	scale := 1.0
	for suffix, by := range map[string]float64{"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3} {
		if cut, ok := strings.CutSuffix(text, suffix); ok {
			text, scale = cut, by
			break
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("read quantity: %w", err)
	}
	return v * scale, nil
}

// replicas are those that the Deployments want, by name.
func (a *apiserver) replicas(ctx context.Context) (map[string]int, error) {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ Replicas int }
		}
	}
	if err := a.get(ctx, "/apis/apps/v1/namespaces/"+namespace+"/deployments", &list); err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, d := range list.Items {
		out[d.Metadata.Name] = d.Spec.Replicas
	}
	return out, nil
}
