package metadata

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// maxPath bounds a request's path: three names of 253 bytes each, escaped at worst.
const maxPath = 4 << 10

// spokenRelease is the release of Datadog's cluster agent whose API this is: its
// node agents ask for the version first, and then use what that one has.
var spokenRelease = version{Major: 7, Minor: 85, Patch: 0, Meta: "kelpie"}

// version is spelled as Datadog's agents read it.
type version struct {
	Major, Minor, Patch int
	Pre, Meta, Commit   string
}

// handler is the API. Every path asks for the token first.
type handler struct {
	index    *Index
	token    [sha256.Size]byte
	requests *prometheus.CounterVec // by handler and status
}

func newHandler(index *Index, token string, reg prometheus.Registerer) http.Handler {
	h := &handler{index: index, token: sha256.Sum256([]byte(token)), requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "api_requests", Help: "Requests of node agents, by what was asked and the answer's status.",
	}, []string{"handler", "status"})}
	if reg != nil {
		reg.MustRegister(h.requests)
	}
	mux := http.NewServeMux()
	route := func(pattern, name string, answer func(*http.Request) (any, error)) {
		mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, r *http.Request) { h.answer(w, r, name, answer) })
	}
	// The names of the handlers are those that Datadog's cluster agent counts by.
	route("/version", "getVersion", func(*http.Request) (any, error) { return spokenRelease, nil })
	route("/api/v1/tags/pod/{node}/{namespace}/{pod}", "getPodMetadata", h.podTags)
	route("/api/v1/tags/pod/{node}", "getPodMetadataForNode", h.nodePods)
	route("/api/v1/tags/node/{node}", "getNodeMetadata", h.nodeLabels)
	route("/api/v1/annotations/node/{node}", "getNodeAnnotations", h.nodeAnnotations)
	route("/api/v1/uid/node/{node}", "getNodeUID", h.nodeUID)
	route("/api/v1/tags/namespace/{namespace}", "getNamespaceLabels", h.namespaceLabels)
	route("/api/v1/cluster/id", "getClusterID", h.clusterID)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		h.fail(w, "other", problem{http.StatusNotFound, "no such path: this cluster agent serves /version and, below /api/v1, tags, annotations, uid and cluster/id"})
	})
	return h.authenticated(mux)
}

// authenticated lets through who bears the token.
func (h *handler) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		sum := sha256.Sum256([]byte(token)) // of one length, so that the comparison tells nothing of the token's
		switch {
		case !strings.EqualFold(scheme, "Bearer") || token == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="Datadog Agent"`)
			h.fail(w, "auth", problem{http.StatusUnauthorized, "no token: send Authorization: Bearer and the token that agents and cluster agent share"})
		case subtle.ConstantTimeCompare(sum[:], h.token[:]) != 1:
			h.fail(w, "auth", problem{http.StatusForbidden, "not the token of this cluster agent: DD_CLUSTER_AGENT_AUTH_TOKEN must be the same on both sides"})
		case len(r.URL.EscapedPath()) > maxPath:
			h.fail(w, "other", problem{http.StatusRequestURITooLong, "the path is longer than names in Kubernetes are"})
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// problem is an error with its status.
type problem struct {
	status int
	text   string
}

// Error says what is wrong.
func (p problem) Error() string { return p.text }

var errNotYet = problem{http.StatusServiceUnavailable, "the cluster agent has not read this from the API server yet (may it list and watch endpointslices, nodes and namespaces?); try again"}

func noSuch(what, name string) error {
	return problem{http.StatusNotFound, "no " + what + " " + strconv.Quote(name) + " in this cluster"}
}

func (h *handler) answer(w http.ResponseWriter, r *http.Request, name string, answer func(*http.Request) (any, error)) {
	v, err := answer(r)
	if err != nil {
		h.fail(w, name, err)
		return
	}
	body, err := json.Marshal(v)
	if err != nil {
		h.fail(w, name, err)
		return
	}
	h.requests.WithLabelValues(name, "200").Inc()
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // who does not wait for the answer does not need it
}

func (h *handler) fail(w http.ResponseWriter, name string, err error) {
	status := http.StatusInternalServerError
	if p, ok := err.(problem); ok { //nolint:errorlint // problems are made here and never wrapped
		status = p.status
	}
	h.requests.WithLabelValues(name, strconv.Itoa(status)).Inc()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}

// podTags answers the tags of one pod that only the cluster knows. A pod that no
// service selects has none. The node in the path is not needed: a pod's name says
// all.
func (h *handler) podTags(r *http.Request) (any, error) {
	if !h.index.slices.Synced() {
		return nil, errNotYet
	}
	tags := h.index.Services(r.PathValue("namespace"), r.PathValue("pod"))
	for i, service := range tags {
		tags[i] = "kube_service:" + service
	}
	return tags, nil
}

// nodePods answers the services of all pods of one node.
func (h *handler) nodePods(r *http.Request) (any, error) {
	if !h.index.slices.Synced() {
		return nil, errNotYet
	}
	type services struct {
		Services Pods `json:"services"`
	}
	node := r.PathValue("node")
	return struct{ Nodes map[string]services }{map[string]services{node: {h.index.OnNode(node)}}}, nil
}

func (h *handler) nodeLabels(r *http.Request) (any, error) {
	return found(h.index.nodes.Synced, "node", r.PathValue("node"), h.index.NodeLabels)
}

func (h *handler) nodeAnnotations(r *http.Request) (any, error) {
	return found(h.index.nodes.Synced, "node", r.PathValue("node"), h.index.NodeAnnotations)
}

func (h *handler) nodeUID(r *http.Request) (any, error) {
	return found(h.index.nodes.Synced, "node", r.PathValue("node"), func(name string) (map[string]string, bool) {
		uid, ok := h.index.NodeUID(name)
		return map[string]string{"uid": uid}, ok
	})
}

func (h *handler) namespaceLabels(r *http.Request) (any, error) {
	return found(h.index.namespaces.Synced, "namespace", r.PathValue("namespace"), h.index.NamespaceLabels)
}

func (h *handler) clusterID(*http.Request) (any, error) {
	return found(h.index.namespaces.Synced, "namespace", "kube-system", func(string) (string, bool) { return h.index.ClusterID() })
}

// found looks name up, and tells what is not there from what is not known yet.
func found[T any](synced func() bool, what, name string, get func(string) (T, bool)) (any, error) {
	complete := synced()
	v, ok := get(name)
	switch {
	case ok:
		return v, nil
	case complete:
		return nil, noSuch(what, name)
	}
	return nil, errNotYet
}
