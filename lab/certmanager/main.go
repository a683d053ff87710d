// Command certmanager runs cert-manager's own controllers, from its library: those
// that issue certificates for Certificates of self-signed and CA issuers, and the
// injector of an APIService's caBundle. It is for tests: no leader is elected,
// there is no webhook, and what a Certificate leaves out is not defaulted.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cert-manager/cert-manager/pkg/api"
	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	requestsca "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	requestsselfsigned "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	"github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	"github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"         // makes the kind known to issuers
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned" // the same
	"github.com/cert-manager/cert-manager/pkg/util"
	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// wanted are the controllers to run, of those that the imports have registered.
var wanted = []string{
	issuers.ControllerName, clusterissuers.ControllerName,
	trigger.ControllerName, keymanager.ControllerName, requestmanager.ControllerName, issuing.ControllerName,
	readiness.ControllerName, revisionmanager.ControllerName,
	approver.ControllerName, requestsca.CRControllerName, requestsselfsigned.CRControllerName,
}

func main() {
	flags := flag.NewFlagSet("certmanager", flag.ExitOnError) // controller-runtime has a flag of this name in the other
	kubeconfig := flags.String("kubeconfig", "", "`file` that says how to reach the API server")
	_ = flags.Parse(os.Args[1:]) // exits
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	logger := logr.FromSlogHandler(log.Handler())
	klog.SetLogger(logger)
	ctrl.SetLogger(logger)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(logr.NewContext(ctx, logger), *kubeconfig)
	stop()
	if err != nil {
		log.Error("cannot go on", "error", err)
		os.Exit(1)
	}
}

// run runs all of it until ctx ends.
func run(ctx context.Context, kubeconfig string) error {
	g, ctx := errgroup.WithContext(ctx)
	if err := issue(ctx, g, kubeconfig); err != nil {
		return err
	}
	injector, err := newInjector(ctx, kubeconfig)
	if err != nil {
		return fmt.Errorf("set up the injector: %w", err)
	}
	g.Go(func() error { return injector.Start(ctx) })
	return g.Wait()
}

// issue starts the controllers, with the defaults of cert-manager's own command.
func issue(ctx context.Context, g *errgroup.Group, kubeconfig string) error {
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig: kubeconfig, KubernetesAPIQPS: 20, KubernetesAPIBurst: 50,
		IssuerOptions: controller.IssuerOptions{ClusterResourceNamespace: "kube-system"},
		CertificateOptions: controller.CertificateOptions{
			CopiedAnnotationPrefixes:                 []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"},
			CertificateRequestMinimumBackoffDuration: time.Hour,
			CertificateRequestMaximumBackoffDuration: 32 * time.Hour,
		},
	})
	if err != nil {
		return fmt.Errorf("reach the API server by %q: %w", kubeconfig, err)
	}
	shared, err := factory.Build()
	if err != nil {
		return fmt.Errorf("build the shared informers: %w", err)
	}
	for _, name := range wanted {
		c, err := controller.Known()[name](factory)
		if err != nil {
			return fmt.Errorf("set up controller %s: %w", name, err)
		}
		g.Go(func() error { return c.Run(2, ctx) })
	}
	// After the controllers, which have asked for theirs.
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	return nil
}

// newInjector returns what writes the caBundle of annotated APIServices.
func newInjector(ctx context.Context, kubeconfig string) (ctrl.Manager, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{kscheme.AddToScheme, api.AddToScheme, apiregistrationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	// The name becomes the field manager of what it writes.
	mgr, err := ctrl.NewManager(util.RestConfigWithUserAgent(config, "cainjector"), ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"},
		// Of Secrets it watches metadata alone, and reads the one it needs.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
	})
	if err != nil {
		return nil, err
	}
	return mgr, cainjector.RegisterAllInjectors(ctx, mgr, cainjector.SetupOptions{
		EnableCertificatesDataSource: true, EnabledReconcilersFor: map[string]bool{cainjector.APIServiceName: true},
	})
}
