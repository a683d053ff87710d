package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// Status is what the node looks like from outside.
type Status struct {
	Healthy    bool              `json:"healthy"` // every component runs and the node is Ready
	Node       string            `json:"node"`    // "Ready", or why not
	Kubeconfig string            `json:"kubeconfig"`
	Registry   string            `json:"registry"`
	Components []ComponentStatus `json:"components"`
}

// ComponentStatus is one process of the node.
type ComponentStatus struct {
	Name    string `json:"name"`
	Running bool   `json:"running"`
	PID     int    `json:"pid,omitempty"`
	Log     string `json:"log"`
}

// Status looks at every component and asks the API server about the node. An
// error means that it could not look; an ill node is no error.
func (n *Node) Status(ctx context.Context) (Status, error) {
	s := Status{Healthy: true, Kubeconfig: n.Kubeconfig(), Registry: RegistryHost, Node: "Ready"}
	for _, c := range n.layout.components() {
		record, alive, err := n.table.Lookup(c.name)
		if err != nil {
			return Status{}, err
		}
		status := ComponentStatus{Name: c.name, Running: alive, Log: n.layout.log(c.name)}
		if alive {
			status.PID = record.PID
		}
		s.Healthy = s.Healthy && alive
		s.Components = append(s.Components, status)
	}
	ask, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := n.ready(ask); err != nil {
		s.Healthy, s.Node = false, err.Error()
	}
	return s, nil
}

func (n *Node) ready(ctx context.Context) error {
	if _, err := os.Stat(n.Kubeconfig()); errors.Is(err, fs.ErrNotExist) {
		return errors.New("the lab is not up")
	}
	api, err := newAPI(n.layout)
	if err != nil {
		return err
	}
	return api.nodeReady(ctx)
}
