package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// api asks the lab's API server the two questions that the lab has. The client
// library would be a hundred times its size.
type api struct {
	client *http.Client
}

func newAPI(l layout) (*api, error) {
	ca, err := os.ReadFile(l.cert("ca"))
	if err != nil {
		return nil, fmt.Errorf("read the lab's certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read the lab's certificate authority: %s holds no certificate", l.cert("ca"))
	}
	admin, err := tls.LoadX509KeyPair(l.cert("admin"), l.key("admin"))
	if err != nil {
		return nil, fmt.Errorf("read the administrator's certificate: %w", err)
	}
	return &api{client: &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{admin}}},
	}}, nil
}

func (a *api) get(ctx context.Context, path string) ([]byte, error) {
	const limit = 4 << 20
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, apiserverURL()+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the API server for %s: %w", path, err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err // names the URL
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("ask the API server for %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the API server for %s: %s", path, resp.Status)
	}
	return body, nil
}

func (a *api) ready(ctx context.Context) error {
	_, err := a.get(ctx, "/readyz")
	return err
}

// nodeReady also wants the start-up taint gone, so that pods are scheduled.
func (a *api) nodeReady(ctx context.Context) error {
	body, err := a.get(ctx, "/api/v1/nodes/"+NodeName)
	if err != nil {
		return err
	}
	return readyIn(body)
}

func readyIn(node []byte) error {
	var n struct {
		Spec struct {
			Taints []struct{ Key string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal(node, &n); err != nil {
		return fmt.Errorf("read node %s: %w", NodeName, err)
	}
	for _, t := range n.Spec.Taints {
		if t.Key == "node.kubernetes.io/not-ready" {
			return errors.New("the node is still marked not ready")
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type != "Ready" {
			continue
		}
		if c.Status == "True" {
			return nil
		}
		return fmt.Errorf("not ready: %s", c.Message)
	}
	return errors.New("the kubelet has not reported yet")
}
