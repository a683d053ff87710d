package origin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"time"
)

// maxPods bounds the kubelet's list of pods in bytes.
const maxPods = 64 << 20

// KubeletOptions says how to reach the kubelet of this node.
type KubeletOptions struct {
	Host      string        // name or address; required
	Port      int           // 0 means 10250
	TokenFile string        // read for each request, as tokens rotate; "" means DefaultTokenFile
	CAFile    string        // that signed the kubelet's certificate; "" means DefaultCAFile
	Insecure  bool          // do not verify the kubelet's certificate
	Timeout   time.Duration // of one request; 0 means 5 s
}

// Kubelet asks the kubelet's API.
type Kubelet struct{ peer peer }

// OpenKubelet reads the CA; it does not connect yet.
func OpenKubelet(o KubeletOptions) (*Kubelet, error) {
	client, err := newClient(cmp.Or(o.CAFile, DefaultCAFile), o.Insecure, cmp.Or(o.Timeout, 5*time.Second))
	if err != nil {
		return nil, fmt.Errorf("read the CA of the kubelet's certificate (DD_KUBELET_CLIENT_CA): %w", err)
	}
	return &Kubelet{peer{
		name:       "the kubelet",
		base:       "https://" + net.JoinHostPort(o.Host, strconv.Itoa(cmp.Or(o.Port, 10250))),
		token:      tokenOf(cmp.Or(o.TokenFile, DefaultTokenFile)),
		denied:     "the agent's service account needs the verb get on nodes/proxy, or on nodes/pods, nodes/metrics and nodes/stats",
		mistrusted: "set DD_KUBELET_CLIENT_CA to the CA that signed the kubelet's certificate, or DD_KUBELET_TLS_VERIFY=false",
		client:     client,
	}}, nil
}

// Close gives idle connections back.
func (k *Kubelet) Close() { k.peer.client.CloseIdleConnections() }

// Pods returns the pods of this node.
func (k *Kubelet) Pods(ctx context.Context) ([]Pod, error) {
	body, err := k.Get(ctx, "/pods", maxPods)
	if err != nil {
		return nil, err
	}
	return decodePods(body)
}

// Get returns the body of the kubelet's answer at path, such as
// /metrics/cadvisor or /stats/summary. An answer of more than limit bytes and
// one that is not 200 OK are errors.
func (k *Kubelet) Get(ctx context.Context, path string, limit int64) ([]byte, error) {
	return k.peer.get(ctx, path, limit)
}

func decodePods(body []byte) ([]Pod, error) {
	var list PodList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("decode the kubelet's pods: %w", err)
	}
	return list.Items, nil
}
