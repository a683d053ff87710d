package origin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Bounds of answers in bytes.
const (
	maxServices = 16 << 20
	maxLabels   = 1 << 20
)

// ClusterAgentOptions says how to reach a cluster agent, Kelpie's or Datadog's.
type ClusterAgentOptions struct {
	URL      string        // https://host:port; required
	Token    string        // that node agents and the cluster agent share
	Node     string        // name of this node; required
	CAFile   string        // that signed the cluster agent's certificate; "" means DefaultCAFile
	Insecure bool          // do not verify the certificate: Datadog's cluster agent signs its own
	Timeout  time.Duration // of one request; 0 means 3 s
}

// ClusterAgent asks a cluster agent for metadata, by the API that Datadog's
// serves to node agents.
type ClusterAgent struct {
	node string
	peer peer
}

var _ Cluster = (*ClusterAgent)(nil)

// OpenClusterAgent reads the CA; it does not connect yet.
func OpenClusterAgent(o ClusterAgentOptions) (*ClusterAgent, error) {
	base, err := httpsURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("the cluster agent's address (DD_CLUSTER_AGENT_URL): %w", err)
	}
	if o.Node == "" {
		return nil, errors.New("the cluster agent is asked by node, but this node's name is not known (DD_KUBERNETES_NODE_NAME)")
	}
	client, err := newClient(cmp.Or(o.CAFile, DefaultCAFile), o.Insecure, cmp.Or(o.Timeout, 3*time.Second))
	if err != nil {
		return nil, fmt.Errorf("read the CA of the cluster agent's certificate: %w", err)
	}
	return &ClusterAgent{o.Node, peer{
		name: "the cluster agent", base: base, client: client,
		token:      func() (string, error) { return o.Token, nil },
		denied:     "DD_CLUSTER_AGENT_AUTH_TOKEN is not the cluster agent's",
		mistrusted: "name the CA that signed the cluster agent's certificate, or turn its verification off",
	}}, nil
}

// httpsURL returns an address as an https URL without a trailing slash. A token
// may go nowhere else.
func httpsURL(address string) (string, error) {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return "", errors.New("expected https://host:port")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// Close gives idle connections back.
func (c *ClusterAgent) Close() { c.peer.client.CloseIdleConnections() }

// Services returns the names of the services that select each pod of this
// node, sorted, by "namespace/pod".
func (c *ClusterAgent) Services(ctx context.Context) (map[string][]string, error) {
	body, err := c.peer.get(ctx, "/api/v1/tags/pod/"+url.PathEscape(c.node), maxServices)
	if err != nil {
		return nil, err
	}
	return decodeServices(body, c.node)
}

func decodeServices(body []byte, node string) (map[string][]string, error) {
	var answer struct {
		Nodes map[string]struct {
			// by namespace, pod and name; the innermost objects are empty
			Services map[string]map[string]map[string]struct{} `json:"services"`
		} `json:"Nodes"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("decode the cluster agent's services: %w", err)
	}
	out := map[string][]string{}
	for namespace, pods := range answer.Nodes[node].Services {
		for pod, names := range pods {
			out[namespace+"/"+pod] = slices.Sorted(maps.Keys(names))
		}
	}
	return out, nil
}

// NamespaceLabels returns the labels of a namespace.
func (c *ClusterAgent) NamespaceLabels(ctx context.Context, namespace string) (map[string]string, error) {
	return c.labels(ctx, "/api/v1/tags/namespace/"+url.PathEscape(namespace))
}

// NodeLabels returns the labels of this node. See NodeTags.
func (c *ClusterAgent) NodeLabels(ctx context.Context) (map[string]string, error) {
	return c.labels(ctx, "/api/v1/tags/node/"+url.PathEscape(c.node))
}

func (c *ClusterAgent) labels(ctx context.Context, path string) (map[string]string, error) {
	body, err := c.peer.get(ctx, path, maxLabels)
	if err != nil {
		return nil, err
	}
	var labels map[string]string
	if err := json.Unmarshal(body, &labels); err != nil {
		return nil, fmt.Errorf("decode the cluster agent's answer to %s: %w", path, err)
	}
	return labels, nil
}
