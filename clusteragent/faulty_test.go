package clusteragent

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// faulty stands between a replica and the Kubernetes API server, which stays the
// real one: it withholds, delays and refuses.
type faulty struct {
	kubeconfig string

	mu       sync.Mutex
	hung     chan struct{} // closed at the end of the fault; nil without one: nothing passes, nothing is refused
	refusing bool          // connections are closed
	delay    time.Duration // of each request
	expired  int           // so many watches are answered 410 Gone
	requests int
	cut      chan struct{} // closed to end the streams that are open
}

// newFaulty returns one in front of c; what goes through it is the test's administrator.
func newFaulty(t *testing.T, c *cluster) *faulty {
	t.Helper()
	f := &faulty{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), cut: make(chan struct{})}
	transport, err := rest.TransportFor(c.config)
	must(t, err)
	base, _, err := rest.DefaultServerUrlFor(c.config)
	must(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: base.Scheme, Host: base.Host}) },
		Transport:      transport,
		FlushInterval:  -1,
		ModifyResponse: func(resp *http.Response) error { resp.Body = &stalling{resp.Body, f}; return nil },
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.pass(w, r, proxy) }))
	t.Cleanup(func() {
		f.set(func(f *faulty) { f.heal() })
		srv.CloseClientConnections()
		srv.Close()
	})
	must(t, os.WriteFile(f.kubeconfig, fmt.Appendf(nil, `{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: %q}}], users: [{name: u, user: {}}], contexts: [{name: c, context: {cluster: c, user: u}}]}`, srv.URL), 0o600))
	return f
}

func (f *faulty) set(change func(*faulty)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *faulty) hang() { f.hung = make(chan struct{}) }

// refuse closes what is open, and whatever comes.
func (f *faulty) refuse() {
	f.refusing = true
	f.end()
}

// end closes the streams that are open.
func (f *faulty) end() {
	close(f.cut)
	f.cut = make(chan struct{})
}

func (f *faulty) heal() {
	if f.hung != nil {
		close(f.hung)
	}
	f.hung, f.refusing, f.delay, f.expired = nil, false, 0, 0
}

// count returns the requests since it was last asked.
func (f *faulty) count() (n int) {
	f.set(func(f *faulty) { n, f.requests = f.requests, 0 })
	return n
}

func (f *faulty) pass(w http.ResponseWriter, r *http.Request, proxy http.Handler) {
	f.mu.Lock()
	f.requests++
	hung, refusing, delay, cut := f.hung, f.refusing, f.delay, f.cut
	watch := r.URL.Query().Get("watch") == "true"
	gone := watch && f.expired > 0
	if gone {
		f.expired--
	}
	f.mu.Unlock()
	if hung != nil {
		select {
		case <-hung:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	}
	if refusing {
		panic(http.ErrAbortHandler)
	}
	time.Sleep(delay)
	if gone {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusGone)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410,"message":"too old resource version"}`)
		return
	}
	done := make(chan struct{})
	defer close(done)
	rc := http.NewResponseController(w)
	go func() { // ends with the request
		select {
		case <-cut:
			_ = rc.SetWriteDeadline(time.Now())
			_ = rc.SetReadDeadline(time.Now())
		case <-done:
		}
	}()
	proxy.ServeHTTP(w, r)
}

// stalling withholds what a stream says while the network hangs.
type stalling struct {
	io.ReadCloser
	f *faulty
}

func (s *stalling) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.f.mu.Lock()
	hung := s.f.hung
	s.f.mu.Unlock()
	if hung != nil {
		<-hung
		return 0, io.ErrUnexpectedEOF
	}
	return n, err // ReverseProxy branches on it
}
