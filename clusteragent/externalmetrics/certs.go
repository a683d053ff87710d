package externalmetrics

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
)

// APIServiceName is the registration of the API.
const APIServiceName = "v1beta1.external.metrics.k8s.io"

var (
	apiServices = schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}
	secrets     = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
)

// KeeperOptions configures a Keeper. All but Registerer and Log are required.
type KeeperOptions struct {
	Client     dynamic.Interface
	Namespace  string                // of the Secret and the Service
	Secret     string                // holds the authority, the certificate and the keys
	Service    string                // what the APIService points to
	Registerer prometheus.Registerer // nil registers nowhere
	Log        *slog.Logger          // nil discards
}

// A Keeper holds the serving certificate in memory, and keeps three places in
// step: the Secret that all replicas share, what is served, and the caBundle of
// the APIService. It is a dynamiccertificates.CertKeyContentProvider.
type Keeper struct {
	opts    KeeperOptions
	kick    chan struct{} // holds a token when something may differ
	expires prometheus.Gauge
	ours    prometheus.Gauge

	mu            sync.RWMutex // guards what follows
	cert, key, ca []byte
	listeners     []dynamiccertificates.Listener
	registration  string // what was last said of the APIService; "" for nothing wrong
}

// NewKeeper returns a Keeper without certificate; see Ensure.
func NewKeeper(o KeeperOptions) (*Keeper, error) {
	if o.Client == nil || o.Namespace == "" || o.Secret == "" || o.Service == "" {
		return nil, errors.New("new certificate keeper: Client, Namespace, Secret and Service are required")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{
		opts: o, kick: make(chan struct{}, 1),
		expires: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kelpie_external_metrics_certificate_expiry_timestamp_seconds",
			Help: "When the serving certificate ends."}),
		ours: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kelpie_external_metrics_apiservice_registered",
			Help: "1 while the APIService points to this installation and trusts its certificate."}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(k.expires, k.ours)
	}
	return k, nil
}

// Name implements dynamiccertificates.CertKeyContentProvider.
func (k *Keeper) Name() string { return "secret/" + k.opts.Namespace + "/" + k.opts.Secret }

// CurrentCertKeyContent implements dynamiccertificates.CertKeyContentProvider.
func (k *Keeper) CurrentCertKeyContent() (cert, key []byte) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.cert, k.key
}

// AddListener implements dynamiccertificates.Notifier.
func (k *Keeper) AddListener(l dynamiccertificates.Listener) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.listeners = append(k.listeners, l)
}

// Registration says what is wrong with the APIService, or "".
func (k *Keeper) Registration() string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.registration
}

// names returns the names under which the Service is reached; the API server
// uses the first.
func (k *Keeper) names() []string {
	svc, ns := k.opts.Service, k.opts.Namespace
	return []string{svc + "." + ns + ".svc", svc, svc + "." + ns, svc + "." + ns + ".svc.cluster.local", "localhost"}
}

// Ensure loads the certificate from its Secret, which whichever replica comes
// first creates, and mends it if it is of no use or ends soon.
func (k *Keeper) Ensure(ctx context.Context) error {
	client := k.opts.Client.Resource(secrets).Namespace(k.opts.Namespace)
	for {
		u, err := client.Get(ctx, k.opts.Secret, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			u, err = nil, nil
		}
		if err != nil {
			return fmt.Errorf("read the certificate's %s: %w", k.Name(), err)
		}
		data, why := k.judge(u, time.Now())
		if why == nil {
			k.load(data)
			return nil
		}
		err = k.write(ctx, client, u, data, why)
		if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) {
			continue // another replica was first: use what it wrote
		}
		if err != nil {
			return fmt.Errorf("write the certificate's %s: %w", k.Name(), err)
		}
	}
}

var errAbsent = errors.New("it does not exist")

// judge returns the data of a Secret, and why it must be written anew, if so.
func (k *Keeper) judge(u *unstructured.Unstructured, now time.Time) (map[string][]byte, error) {
	if u == nil {
		return nil, errAbsent
	}
	data := map[string][]byte{}
	raw, _, _ := unstructured.NestedStringMap(u.Object, "data")
	for key, v := range raw {
		if b, err := base64.StdEncoding.DecodeString(v); err == nil {
			data[key] = b
		}
	}
	end, err := usable(data, k.names()[0], now)
	if err != nil {
		return data, err
	}
	k.expires.Set(float64(end.Unix()))
	if left := end.Sub(now); left < renewBefore {
		if len(data[caKeyKey]) > 0 {
			return data, fmt.Errorf("its certificate ends %s", end.UTC().Format(time.RFC3339))
		}
		// Without the authority's key the certificate is somebody else's to renew.
		k.opts.Log.Warn("serving certificate ends soon and its authority is not ours: renew it", "secret", k.Name(), "ends", end)
	}
	return data, nil
}

func (k *Keeper) write(ctx context.Context, client dynamic.ResourceInterface, u *unstructured.Unstructured, data map[string][]byte, why error) error {
	fresh, err := issue(data, k.names(), time.Now())
	if err != nil {
		return err
	}
	encoded := map[string]any{}
	for key, v := range fresh {
		encoded[key] = base64.StdEncoding.EncodeToString(v)
	}
	k.opts.Log.Info("writing serving certificate", "secret", k.Name(), "because", why.Error())
	if u == nil {
		u = &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Secret", "type": string(corev1.SecretTypeTLS), "data": encoded,
			"metadata": map[string]any{"namespace": k.opts.Namespace, "name": k.opts.Secret},
		}}
		_, err = client.Create(ctx, u, metav1.CreateOptions{})
		return err // Ensure branches on it and wraps it
	}
	u.Object["data"] = encoded // the version in u makes a concurrent write a conflict
	_, err = client.Update(ctx, u, metav1.UpdateOptions{})
	return err // Ensure branches on it and wraps it
}

// load serves data from now on.
func (k *Keeper) load(data map[string][]byte) {
	k.mu.Lock()
	changed := !bytes.Equal(k.cert, data[corev1.TLSCertKey]) || !bytes.Equal(k.ca, data[caCertKey])
	k.cert, k.key, k.ca = data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey], data[caCertKey]
	listeners := k.listeners
	k.mu.Unlock()
	if changed {
		k.opts.Log.Info("serving with certificate", "secret", k.Name())
		for _, l := range listeners {
			l.Enqueue()
		}
	}
}

// Register makes the APIService trust the authority. It leaves alone one that
// points elsewhere: two installations that both mend it would do nothing else.
func (k *Keeper) Register(ctx context.Context) error {
	u, err := k.opts.Client.Resource(apiServices).Get(ctx, APIServiceName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		k.say("there is no APIService " + APIServiceName + ": autoscalers cannot ask for external metrics until it is created")
		return nil
	}
	if err != nil {
		return fmt.Errorf("read APIService %s: %w", APIServiceName, err)
	}
	ns, _, _ := unstructured.NestedString(u.Object, "spec", "service", "namespace")
	svc, _, _ := unstructured.NestedString(u.Object, "spec", "service", "name")
	if ns != k.opts.Namespace || svc != k.opts.Service {
		k.say(fmt.Sprintf("APIService %s points to service %q, not to ours (%s/%s): another external metrics server owns it; remove one of the two",
			APIServiceName, ns+"/"+svc, k.opts.Namespace, k.opts.Service))
		return nil
	}
	k.mu.RLock()
	want := base64.StdEncoding.EncodeToString(k.ca)
	k.mu.RUnlock()
	bundle, _, _ := unstructured.NestedString(u.Object, "spec", "caBundle")
	insecure, _, _ := unstructured.NestedBool(u.Object, "spec", "insecureSkipTLSVerify")
	if bundle != want || insecure {
		patch := fmt.Sprintf(`{"spec":{"caBundle":%q,"insecureSkipTLSVerify":false}}`, want)
		if _, err := k.opts.Client.Resource(apiServices).Patch(ctx, APIServiceName, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("set caBundle of APIService %s: %w", APIServiceName, err)
		}
		k.opts.Log.Info("set caBundle of APIService", "apiservice", APIServiceName)
	}
	k.say("")
	return nil
}

// say records and logs, once, what is wrong with the registration.
func (k *Keeper) say(wrong string) {
	k.mu.Lock()
	news := k.registration != wrong
	k.registration = wrong
	k.mu.Unlock()
	ok := 0.0
	if wrong == "" {
		ok = 1
	}
	k.ours.Set(ok)
	if news && wrong != "" {
		k.opts.Log.Warn("not registered", "problem", wrong)
	}
}

// Run keeps the three places in step until ctx ends, and then returns nil.
func (k *Keeper) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for gvr, at := range map[schema.GroupVersionResource]types.NamespacedName{
		secrets:     {Namespace: k.opts.Namespace, Name: k.opts.Secret},
		apiServices: {Name: APIServiceName},
	} {
		only := func(lo *metav1.ListOptions) {
			lo.FieldSelector = fields.OneTermEqualSelector("metadata.name", at.Name).String()
		}
		inf := dynamicinformer.NewFilteredDynamicInformer(k.opts.Client, gvr, at.Namespace, 0, cache.Indexers{}, only).Informer()
		wake := func(any) { k.wake() }
		if _, err := inf.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: wake, DeleteFunc: wake, UpdateFunc: func(_, o any) { wake(o) }}); err != nil {
			return fmt.Errorf("watch %s %s: %w", gvr.Resource, at.Name, err)
		}
		g.Go(func() error { inf.RunWithContext(ctx); return nil })
	}
	k.wake()
	g.Go(func() error { k.loop(ctx); return nil })
	return g.Wait()
}

func (k *Keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

func (k *Keeper) loop(ctx context.Context) {
	const slowest = time.Hour // also how often the expiry is looked at
	wait := time.Second
	for {
		err := k.Ensure(ctx)
		if err == nil {
			err = k.Register(ctx)
		}
		next := slowest
		if err != nil && ctx.Err() == nil {
			k.opts.Log.Warn("cannot keep the certificate in step, will retry", "error", err, "in", wait.String())
			next = wait
			wait = min(2*wait, time.Minute)
		} else {
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-k.kick:
		case <-time.After(next):
		}
	}
}
