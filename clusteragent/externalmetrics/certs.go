package externalmetrics

import (
	"bytes"
	"context"
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

// Reasons of events.
const (
	notRegistered  = "ExternalMetricsNotRegistered"
	badCertificate = "ServingCertificate"
	repaired       = "ServingCertificateReplaced"
)

// APIServiceName is the registration of the API.
const APIServiceName = "v1beta1.external.metrics.k8s.io"

var (
	apiServiceRef = corev1.ObjectReference{APIVersion: "apiregistration.k8s.io/v1", Kind: "APIService", Name: APIServiceName}

	apiServices = schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}
	secrets     = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
)

// KeeperOptions configures a Keeper. All but Registerer and Log are required.
type KeeperOptions struct {
	Client     dynamic.Interface
	Namespace  string                // of the Secret and the Service
	Secret     string                // holds the authority, the certificate and the keys
	Service    string                // what the APIService points to
	Tell       Tell                  // what all replicas see, and one tells; nil tells nobody
	TellDone   Tell                  // what this replica alone has done; nil tells nobody
	Issued     bool                  // cert-manager fills the Secret: it is only read, and waited for
	Registerer prometheus.Registerer // nil registers nowhere
	Log        *slog.Logger          // nil discards
}

// Tell tells a person who describes an object what is wrong with it.
type Tell func(object corev1.ObjectReference, reason, message string)

// A Keeper holds the serving certificate in memory, and keeps three places in
// step: the Secret that all replicas share, what is served, and the caBundle of
// the APIService. It is a dynamiccertificates.CertKeyContentProvider.
type Keeper struct {
	opts    KeeperOptions
	kick    chan struct{} // holds a token when something may differ
	dispute dispute       // of Register alone
	expires prometheus.Gauge
	ours    prometheus.Gauge

	mu            sync.RWMutex // guards what follows
	cert, key, ca []byte
	listeners     []dynamiccertificates.Listener
	registration  string    // what is wrong with the APIService, as last said; "" for nothing
	certificate   string    // the same of the certificate
	ends          time.Time // of the certificate that is served
}

// NewKeeper returns a Keeper without certificate; see Ensure.
func NewKeeper(o KeeperOptions) (*Keeper, error) {
	if o.Client == nil || o.Namespace == "" || o.Secret == "" || o.Service == "" {
		return nil, errors.New("new certificate keeper: Client, Namespace, Secret and Service are required")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	nobody := func(corev1.ObjectReference, string, string) {}
	if o.Tell == nil {
		o.Tell = nobody
	}
	if o.TellDone == nil {
		o.TellDone = nobody
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

// Certificate says what is wrong with the serving certificate, or "", and when
// the one that is served ends.
func (k *Keeper) Certificate() (wrong string, ends time.Time) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.certificate, k.ends
}

// Retell tells again what is wrong: to a new leader it is news.
func (k *Keeper) Retell() {
	k.mu.RLock()
	registration, certificate := k.registration, k.certificate
	k.mu.RUnlock()
	if registration != "" {
		k.opts.Tell(apiServiceRef, notRegistered, registration)
	}
	if certificate != "" {
		k.opts.Tell(k.secretRef(), badCertificate, certificate)
	}
}

// names returns the names under which the Service is reached; the API server
// uses the first.
func (k *Keeper) names() []string {
	svc, ns := k.opts.Service, k.opts.Namespace
	return []string{svc + "." + ns + ".svc", svc, svc + "." + ns, svc + "." + ns + ".svc.cluster.local", "localhost"}
}

// load serves data from now on.
func (k *Keeper) load(data map[string][]byte, ends time.Time) {
	k.expires.Set(float64(ends.Unix()))
	k.mu.Lock()
	k.ends = ends
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
	bundle, _, _ := unstructured.NestedString(u.Object, "spec", "caBundle")
	k.mu.RLock()
	want := bundleFor(u, bundle, k.ca)
	k.mu.RUnlock()
	insecure, _, _ := unstructured.NestedBool(u.Object, "spec", "insecureSkipTLSVerify")
	now := time.Now()
	if bundle == want && !insecure {
		if wait := k.dispute.lasts(now); wait > 0 {
			return errDisputed{wait}
		}
		k.say("")
		return nil
	}
	if k.dispute.on() {
		k.say(disputed(bundleWriter(u)))
	}
	if wait := k.dispute.wait(now); wait > 0 {
		return errDisputed{wait}
	}
	patch := fmt.Sprintf(`{"spec":{"caBundle":%q,"insecureSkipTLSVerify":false}}`, want)
	if _, err := k.opts.Client.Resource(apiServices).Patch(ctx, APIServiceName, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("set caBundle of APIService %s: %w", APIServiceName, err)
	}
	k.opts.Log.Info("set caBundle of APIService", "apiservice", APIServiceName)
	k.dispute.wrote(now)
	if wait := k.dispute.lasts(now); wait > 0 {
		return errDisputed{wait}
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
	switch {
	case news && wrong != "":
		k.opts.Log.Warn("not registered", "problem", wrong)
		k.opts.Tell(apiServiceRef, notRegistered, wrong)
	case news:
		k.opts.Log.Info("registered", "apiservice", APIServiceName)
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
		next, kick := slowest, k.kick
		if again := (errDisputed{}); errors.As(err, &again) {
			next, kick = again.wait, nil // each of the other's writes is a kick
		} else if err != nil && ctx.Err() == nil {
			k.opts.Log.Warn("cannot keep the certificate in step, will retry", "error", err, "in", wait.String())
			next = wait
			wait = min(2*wait, time.Minute)
		} else {
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-time.After(next):
		}
	}
}
